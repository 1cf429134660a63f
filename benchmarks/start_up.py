"""How long the command line takes to answer, and how much memory a trial takes.

    python -m benchmarks.start_up [--repeats 10] [--limit N]

- `tuner --help` and `tuner validate experiments/mnist_grid.yaml`: wall-clock seconds of the process, after one run that
  is not counted (it compiles bytecode and fills the file cache);
- `tuner train experiments/mnist_grid.yaml trial.epochs=1`: the peak resident memory of its process (ru_maxrss), which
  trains and validates one epoch on all of MNIST. `--limit 2000` makes it short, and its data is still
  all of MNIST, of which it then trains on a part.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.tables import spread, table


def seconds(arguments: list[str]) -> float:
    """Wall-clock seconds of a `tuner` command. Raises CalledProcessError if it fails."""
    started = time.perf_counter()
    subprocess.run(_command(arguments), env=machine.environment(), capture_output=True, check=True)
    return time.perf_counter() - started


def peak_memory(arguments: list[str]) -> float:
    """Peak resident memory of a `tuner` command's process, in GB (10^9 bytes).

    Raises:
        RuntimeError: It failed.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(_command(arguments), env=machine.environment(), stdout=output, stderr=output)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            raise RuntimeError(f"tuner {' '.join(arguments)} failed:\n{output.read().decode()}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def _command(arguments: list[str]) -> list[str]:
    return [str(Path(sys.executable).with_name("tuner")), *arguments]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Start-up time and peak memory.")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--limit", type=int, help="training images of the memory run; default: all 55,000")
    options = parser.parse_args()
    neighbours = machine.Neighbours()

    rows = []
    for arguments in (["--help"], ["validate", str(machine.GRID)]):
        seconds(arguments)
        neighbours.look()
        taken = [seconds(arguments) for _ in range(options.repeats)]
        rows.append([f"`tuner {arguments[0]}`", f"{spread(taken)} s", str(options.repeats)])
    # Linux counts this process's own size into its child's peak: nothing heavy is imported before this.
    training = ["train", str(machine.GRID), "trial.epochs=1"]
    training += [f"trial.data.limit={options.limit}"] if options.limit else []
    images = f"{options.limit:,}" if options.limit else "all 55,000"
    rows.append([f"a trial's peak memory, {images} images", f"{peak_memory(training):.2f} GB", "1"])
    print(table(["", "median (min..max)", "n"], rows))
    print(f"\n{machine.facts(neighbours)}")


if __name__ == "__main__":
    main()
