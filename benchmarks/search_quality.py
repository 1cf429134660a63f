"""Measures how close searches come to the optimum in 25, 50 and 100 trials: random, bayesian, plain Optuna.

    python -m benchmarks.search_quality [--seeds 20] [--trials 100] [--functions branin mixed]
                                        [--samplers random tpe gp auto] [--parallel 1 4] [--keep FILE]

Regret is normalised: (best value so far - optimum) / (median value of random configurations - optimum), so 1 is the
value of a typical random trial and 0 is the optimum. Nothing is clipped. Searches with the same seed are paired.

Searches run in two processes, one thread each. With --keep, each finished search is added to that file as a line and is
not run again, so that a benchmark of hours can be interrupted and extended.
"""

import argparse
import json
import multiprocessing
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from benchmarks import machine, suggestion_time
from benchmarks.contestants import Contestant, Search, resolve, run
from benchmarks.functions import Function, functions
from benchmarks.tables import table

Regrets = np.ndarray[Any, np.dtype[np.float64]]
"""Normalised regret after each trial, of shape (seeds, trials)."""


@dataclass(frozen=True)
class Task:
    """A search to run: its contestant, function, number of trials and seed."""

    contestant: Contestant
    function: str
    trials: int
    seed: int

    @property
    def key(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def measured(tasks: list[Task], processes: int, keep: Path | None) -> Iterator[tuple[Task, Search]]:
    """Yield each task with its search, first those that the file `keep` has."""
    kept: dict[str, Search] = {}
    if keep and keep.exists():
        kept = {line["task"]: Search(line["values"], line["seconds"]) for line in map(json.loads, keep.open())}
    yield from ((task, kept[task.key]) for task in tasks if task.key in kept)
    missing = [task for task in tasks if task.key not in kept]
    if not missing:
        return
    with multiprocessing.get_context("spawn").Pool(processes, initializer=_one_thread) as pool:
        for number, (task, search) in enumerate(pool.imap_unordered(_search, missing), 1):
            if keep:
                with keep.open("a") as lines:
                    lines.write(json.dumps({"task": task.key, **asdict(search)}) + "\n")
            print(f"{number} of {len(missing)}: {task.function}, {task.contestant.name}", file=sys.stderr)
            yield task, search


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _search(task: Task) -> tuple[Task, Search]:
    return task, run(task.contestant, functions()[task.function], task.trials, task.seed)


def regrets(function: Function, searches: Iterable[Search]) -> Regrets:
    """Return the normalised regret of several searches after each of their trials."""
    best = np.minimum.accumulate([search.values for search in searches], axis=1)
    return (best - function.optimum) / (function.typical() - function.optimum)


def error(values: Iterable[float]) -> str:
    """Format the mean of values with its standard error."""
    values = list(values)
    deviation = stdev(values) if len(values) > 1 else float("nan")
    return f"{fmean(values):.4f} ± {deviation / len(values) ** 0.5:.4f}"


def trials_to_reach(of: Regrets, target: float) -> int | None:
    """Return the number of trials after which the mean regret is at most `target`; None if it never is."""
    reached = np.flatnonzero(of.mean(axis=0) <= target)
    return int(reached[0]) + 1 if reached.size else None


def regret_rows(
    of: dict[Contestant, Regrets], seconds: dict[Contestant, float], marks: list[int]
) -> Iterator[list[str]]:
    """Yield a row for each contestant: its regret at each mark, and seconds a suggestion."""
    for contestant, each in of.items():
        yield [contestant.name, *(error(each[:, mark - 1]) for mark in marks), f"{seconds[contestant]:.4f}"]


def target_rows(function: str, of: dict[Contestant, Regrets]) -> Iterator[list[str]]:
    """Yield a row for each of tuner's: trials to random search's final regret, and the difference to Optuna's."""
    random = of.get(Contestant("ours", "random"))
    for contestant, each in of.items():
        if contestant.owner != "ours" or contestant.sampler == "random":
            continue
        count, share, difference = "", "", ""
        if random is not None:
            needed = trials_to_reach(each, float(random[:, -1].mean()))
            count = "never" if needed is None else str(needed)
            share = "" if needed is None else f"{needed / random.shape[1]:.2f}"
        plain = of.get(Contestant("optuna", contestant.sampler, contestant.parallel))
        if plain is not None:
            difference = "same trials" if np.array_equal(each, plain) else error(each[:, -1] - plain[:, -1])
        yield [function, contestant.name, count, share, difference]


def contestants(samplers: list[str], parallel: list[int], function: Function, trials: int) -> list[Contestant]:
    """Return random search, and each sampler in tuner and in Optuna; ``auto`` is resolved for this space."""
    of = [Contestant("ours", "random")] if "random" in samplers else []
    for sampler in dict.fromkeys(resolve(name, function, trials) for name in samplers if name != "random"):
        of += [Contestant(owner, sampler, count) for count in parallel for owner in ("ours", "optuna")]
    return of


def main() -> None:
    """Search, compare and print."""
    every = functions()
    parser = argparse.ArgumentParser(description="Regret of random search, bayesian and plain Optuna.")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--functions", nargs="+", choices=list(every), default=list(every))
    parser.add_argument(
        "--samplers", nargs="+", choices=["random", "tpe", "gp", "auto"], default=["random", "tpe", "gp"]
    )
    parser.add_argument("--parallel", nargs="+", type=int, choices=[1, 4], default=[1, 4])
    parser.add_argument("--processes", type=int, default=2, help="searches side by side")
    parser.add_argument("--keep", type=Path, help="file that keeps every search that has run")
    parser.add_argument(
        "--finished", type=int, default=500, help="trials before a suggestion is timed; 0 for no timing"
    )
    options = parser.parse_args()
    marks = [mark for mark in (25, 50, 100) if mark < options.trials] + [options.trials]
    neighbours = machine.Neighbours()
    neighbours.look()

    print(f"{options.seeds} seeds, {options.trials} trials; normalised regret, mean ± standard error.\n", flush=True)
    targets: list[list[str]] = []
    for name in options.functions:
        function = every[name]
        entered = contestants(options.samplers, options.parallel, function, options.trials)
        tasks = [Task(each, name, options.trials, seed) for each in entered for seed in range(options.seeds)]
        searches: dict[Contestant, dict[int, Search]] = defaultdict(dict)
        for task, search in measured(tasks, options.processes, options.keep):
            searches[task.contestant][task.seed] = search
        in_order = {each: [searches[each][seed] for seed in range(options.seeds)] for each in entered}
        of = {each: regrets(function, of_it) for each, of_it in in_order.items()}
        seconds = {each: fmean(search.seconds for search in of_it) for each, of_it in in_order.items()}
        print(f"### {name}: auto is {resolve('auto', function, options.trials)}\n")
        header = [name, *(f"{mark} trials" for mark in marks), "s a suggestion"]
        print(table(header, regret_rows(of, seconds, marks)), end="\n\n", flush=True)
        targets += target_rows(name, of)
    header = ["function", "", "trials to random's final regret", "share", f"ours - Optuna at {options.trials}"]
    print(table(header, targets), end="\n\n", flush=True)
    if options.finished:
        print(f"One suggestion after {options.finished} finished trials, median (min..max) of 30.\n")
        print(table(suggestion_time.HEADER, suggestion_time.rows(options.finished, 30)), end="\n\n")
    neighbours.look()
    print(machine.facts(neighbours))


if __name__ == "__main__":
    main()
