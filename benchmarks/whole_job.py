"""Compares the full main job, from start to exit, with a script of stock Ray Tune.

    python -m benchmarks.whole_job [--repeats 2] [--epochs N] [--limit N] [--precision auto]

`python -m tuner.run experiments/mnist_grid.yaml` against `benchmarks/stock_tune.py`, which trains the same grid on the
same images with the textbook loop and Ray's MLflow callback. They run in turns, each as a process in an empty folder
with a new MLflow store; seconds are wall-clock seconds of the process, with imports, start and shutdown of Ray, and
recording. The best accuracy of each is read from its MLflow store, in which both must have recorded every trial.

`--epochs 1 --limit 2000 --repeats 1` is a quick check; start-up then outweighs training, so the ratio means little.
"""

import argparse
import contextlib
import itertools
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine, stock_tune
from benchmarks.commands import end
from benchmarks.tables import spread, table
from tuner.spec.loader import load


@dataclass(frozen=True)
class Job:
    """A finished job: its wall-clock seconds, and the best validation accuracy in its record."""

    seconds: float
    best: float


def run(command: Sequence[str], trials: int) -> Job:
    """Run a job in a new folder and read its record.

    Raises:
        RuntimeError: The job failed, or a trial is missing from the record.
    """
    with tempfile.TemporaryDirectory(prefix="tuner-job-") as name:
        folder = Path(name)
        log = folder / "output.txt"
        started = time.perf_counter()
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=machine.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that it can be ended with all its workers
            )
            try:
                status = process.wait()
                seconds = time.perf_counter() - started
            finally:
                end(process)
        if status != 0:
            raise RuntimeError(f"{' '.join(command)} ended with status {status}:\n{log.read_text()[-4000:]}")
        recorded, best = _record(folder / "mlflow.db")
        if recorded != trials:
            raise RuntimeError(f"{' '.join(command)} recorded {recorded} trials, not {trials}")
        return Job(seconds, best)


def _record(store: Path) -> tuple[int, float]:
    """Return the number of runs in an MLflow store that have a validation accuracy, and the best of all epochs."""
    with contextlib.closing(sqlite3.connect(store)) as connection:
        row = connection.execute(
            "SELECT count(DISTINCT run_uuid), max(value) FROM metrics WHERE key = 'val_accuracy'"
        ).fetchone()
    return int(row[0]), float(row[1] or 0)


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description="The whole main job against stock Ray Tune.")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--epochs", type=int, help="default: as in the YAML file")
    parser.add_argument("--limit", type=int, help="training images; default: all 55,000")
    parser.add_argument("--precision", default="auto", help="precision of ours: auto (the default) or float32")
    options = parser.parse_args()
    spec = load(machine.GRID)
    grid = {(point["optimizer.lr"], point["optimizer.momentum"]) for point in spec.plan() or ()}
    assert grid == set(itertools.product(stock_tune.LRS, stock_tune.MOMENTA)), "the two grids are the same"
    epochs = options.epochs or spec.trial.length
    neighbours = machine.Neighbours()

    ours = [sys.executable, "-m", "tuner.run", str(machine.GRID)]
    ours += [f"trial.epochs={epochs}", f"trial.precision={options.precision}"]
    stock = [sys.executable, "-m", "benchmarks.stock_tune", f"--epochs={epochs}"]
    if options.limit:
        ours.append(f"trial.data.limit={options.limit}")
        stock.append(f"--limit={options.limit}")
    pairs: list[tuple[Job, Job]] = []
    with tempfile.TemporaryDirectory(prefix="tuner-mnist-") as name:
        stock.append(f"--data={machine.extract_mnist(Path(name))}")
        for command in (ours, stock):  # bytecode is compiled and files are cached for both before the clock starts
            subprocess.run([*command, "--help"], env=machine.environment(), capture_output=True, check=True)
        for turn in range(1, options.repeats + 1):
            neighbours.look()
            first = run(stock, len(grid))
            neighbours.look()
            second = run(ours, len(grid))
            pairs.append((first, second))
            print(f"turn {turn}: stock {first.seconds:.1f} s, ours {second.seconds:.1f} s", file=sys.stderr)

    images = f"{options.limit:,}" if options.limit else "all 55,000"
    print(
        f"The whole grid job, {len(grid)} trials, {epochs} epochs of {images} training images; s from start to end.\n"
    )
    rows = [
        [
            str(turn),
            f"{a.seconds:.1f}",
            f"{b.seconds:.1f}",
            f"{a.seconds / b.seconds:.2f}",
            f"{a.best:.4f}",
            f"{b.best:.4f}",
        ]
        for turn, (a, b) in enumerate(pairs, start=1)
    ]
    stock_all, ours_all = zip(*pairs, strict=True)
    rows.append(
        [
            "median (min..max)",
            spread([job.seconds for job in stock_all], ".1f"),
            spread([job.seconds for job in ours_all], ".1f"),
            spread([a.seconds / b.seconds for a, b in pairs]),
            spread([job.best for job in stock_all], ".4f"),
            spread([job.best for job in ours_all], ".4f"),
        ]
    )
    ours_name = f"ours, {options.precision}"
    header = ["turn", "stock Ray Tune", ours_name, "times faster", "best val_accuracy, stock", f"best, {ours_name}"]
    print(table(header, rows))
    print(f"\n{machine.facts(neighbours)}")


if __name__ == "__main__":
    main()
