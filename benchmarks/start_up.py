"""Measures the start-up time of the command line, and the memory of a trial.

    python -m benchmarks.start_up [--repeats 10] [--limit N]

- `tuner --help` and `tuner validate experiments/mnist_grid.yaml`: wall-clock seconds of the process, after a warm-up
  run (it compiles bytecode and fills the file cache);
- `tuner train experiments/mnist_grid.yaml trial.epochs=1`: the peak resident memory of the process (ru_maxrss), which
  trains and validates one epoch on all of MNIST. `--limit 2000` shortens it: it still loads all of MNIST, but trains on
  the first 2,000 images.
"""

import argparse

from benchmarks import machine
from benchmarks.commands import usage
from benchmarks.tables import spread, table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Start-up time and peak memory.")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--limit", type=int, help="training images of the memory run; default: all 55,000")
    options = parser.parse_args()
    neighbours = machine.Neighbours()

    rows = []
    for arguments in (["--help"], ["validate", str(machine.GRID)]):
        usage(arguments)
        neighbours.look()
        taken = [usage(arguments).seconds for _ in range(options.repeats)]
        rows.append([f"`tuner {arguments[0]}`", f"{spread(taken)} s", str(options.repeats)])
    training = ["train", str(machine.GRID), "trial.epochs=1"]
    training += [f"trial.data.limit={options.limit}"] if options.limit else []
    images = f"{options.limit:,}" if options.limit else "all 55,000"
    rows.append([f"a trial's peak memory, {images} images", f"{usage(training).peak / 1e9:.2f} GB", "1"])
    print(table(["", "median (min..max)", "n"], rows))
    print(f"\n{machine.facts(neighbours)}")


if __name__ == "__main__":
    main()
