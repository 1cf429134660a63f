"""Measures the start-up time of the command line, and the memory of a trial.

    python -m benchmarks.start_up [--repeats 10] [--limit N]

- `tuner --help` and `tuner validate experiments/mnist_grid.yaml`: wall-clock seconds of the process, after a warm-up
  run (it compiles bytecode and fills the file cache);
- `tuner train experiments/mnist_grid.yaml trial.epochs=1`: the peak resident memory of the process (ru_maxrss), which
  trains and validates one epoch on all of MNIST. `--limit 2000` shortens it: it still loads all of MNIST, but trains on
  the first 2,000 images.
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
    """Return the wall-clock seconds of a `tuner` command. Raises CalledProcessError if it fails."""
    started = time.perf_counter()
    subprocess.run(_command(arguments), env=machine.environment(), capture_output=True, check=True)
    return time.perf_counter() - started


def peak_memory(arguments: list[str]) -> float:
    """Return the peak resident memory of the process of a `tuner` command, in GB (10^9 bytes).

    Raises:
        RuntimeError: The command failed.
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
    # On Linux the child's peak is at least this process's size, so this module imports nothing large.
    training = ["train", str(machine.GRID), "trial.epochs=1"]
    training += [f"trial.data.limit={options.limit}"] if options.limit else []
    images = f"{options.limit:,}" if options.limit else "all 55,000"
    rows.append([f"a trial's peak memory, {images} images", f"{peak_memory(training):.2f} GB", "1"])
    print(table(["", "median (min..max)", "n"], rows))
    print(f"\n{machine.facts(neighbours)}")


if __name__ == "__main__":
    main()
