"""Measures the milliseconds of a suggestion after 500 finished trials, for tuner and for plain Optuna.

    python -m benchmarks.suggestion_time [--finished 500] [--repeats 30]

Both get the same random trials; then they suggest in turns, and each suggestion is evaluated before the next.
"""

import argparse
import time
from collections.abc import Iterable
from statistics import median

import numpy as np

from benchmarks.contestants import Asker, Contestant, opened
from benchmarks.functions import Function, functions
from benchmarks.tables import spread, table
from tuner.search.conditions import draw

HEADER = ["space", "bayesian tpe, ms", "Optuna tpe, ms", "ours adds, ms"]
"""The header for the rows that `row` returns."""
FUNCTIONS = ("hartmann6", "mixed")
"""A space of six numbers, and one of ten keys, half of them conditional."""


def row(function: Function, finished: int, repeats: int) -> list[str]:
    """Return a row of the table: the median of each side, and the median difference within a turn."""
    rng = np.random.default_rng(0)
    sides = [opened(Contestant(owner, "tpe"), function, finished + repeats, 0) for owner in ("ours", "optuna")]
    for _ in range(finished):
        configuration = draw(function.space, lambda name, what: what.sample(rng))
        for side in sides:
            side.learn(configuration, function.value(configuration))
    turns = [[_milliseconds(side, function, number) for side in sides] for number in range(repeats)]
    ours, optunas = ([turn[side] for turn in turns] for side in (0, 1))
    added = median(a - b for a, b in turns)
    return [function.name, spread(ours, ".1f"), spread(optunas, ".1f"), f"{added:+.2f}"]


def _milliseconds(asker: Asker, function: Function, number: int) -> float:
    started = time.perf_counter()
    configuration = asker.ask()
    taken = time.perf_counter() - started
    asker.tell(number, configuration, function.value(configuration))
    return taken * 1000


def rows(finished: int, repeats: int) -> Iterable[list[str]]:
    """Return a row for each function."""
    every = functions()
    return [row(every[name], finished, repeats) for name in FUNCTIONS]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Milliseconds a suggestion: ours, and Optuna's own.")
    parser.add_argument("--finished", type=int, default=500, help="trials that are finished before")
    parser.add_argument("--repeats", type=int, default=30, help="suggestions")
    options = parser.parse_args()
    print(f"{options.finished} finished trials, {options.repeats} suggestions: median (min..max)\n")
    print(table(HEADER, rows(options.finished, options.repeats)))


if __name__ == "__main__":
    main()
