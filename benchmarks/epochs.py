"""Trainings that take turns: seconds of their epochs, and what they reach, against the plain PyTorch script."""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.machine import Neighbours, facts
from benchmarks.tables import spread, table

THREADS = 2
PLAIN, PRECISIONS = "plain", ("float32", "auto")


Write = Callable[[Path, int], None]
"""Writes so many training images, and images of other sets, into a folder."""


@dataclass(frozen=True)
class Job:
    """What is trained: the folder of the images, the number of training images, the number of epochs."""

    folder: Path
    images: int
    epochs: int


@dataclass(frozen=True)
class Training:
    """A finished training: seconds of each epoch with validation, the first from before reading; final score."""

    seconds: list[float]
    score: float


@dataclass(frozen=True)
class Contest:
    """The plain script and ours on the same job, whose functions other processes import.

    Args:
        plain: Trains as the plain script does, with a seed.
        trial: Returns the trial that ours trains, with the place of the decoded images.
        metric: What both measure on the validation set.
    """

    plain: Callable[[Any, int], Training]
    trial: Callable[[Any, str], Any]
    metric: str

    def train(self, contestant: str, job: Any, seed: int) -> Training:
        """Train in this process."""
        import torch

        torch.set_num_threads(THREADS)
        if contestant == PLAIN:
            return self.plain(job, seed)
        _, cache, precision = contestant.split(", ")
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TUNER_DATA_DIR"] = folder  # each turn decodes anew
            return self._ours(self.trial(job, cache).model_copy(update={"precision": precision, "seed": seed}))

    def _ours(self, config: Any) -> Training:
        import torch

        from tuner.objectives import Objective
        from tuner.train.device import keep_freed_memory
        from tuner.train.loop import fit

        keep_freed_memory()  # as every trial does
        scores: list[float] = []
        ends: list[float] = []

        def report(metrics: dict[str, Any], save: object) -> None:
            scores.append(metrics[self.metric])
            ends.append(time.perf_counter())

        started = time.perf_counter()
        fit(config, Objective(metric=self.metric, mode="max"), report, device=torch.device("cpu"))
        return Training([end - before for before, end in zip([started, *ends], ends, strict=False)], scores[-1])

    def run(self, job: Any, caches: Sequence[str], turns: int, neighbours: Neighbours) -> str:
        """Let all take turns in new processes; return a table, whose ratios are taken within a turn."""
        spawn = multiprocessing.get_context("spawn")
        contestants = [PLAIN, *(f"ours, {cache}, {each}" for cache in caches for each in PRECISIONS)]
        done: dict[str, list[Training]] = {contestant: [] for contestant in contestants}
        for seed in range(turns):
            for contestant, trainings in done.items():
                neighbours.look()
                with ProcessPoolExecutor(1, spawn) as pool:
                    trainings.append(pool.submit(self.train, contestant, job, seed).result())
                print(f"turn {seed + 1}: {contestant}: {trainings[-1]}", file=sys.stderr)
        rows = []
        for contestant, trainings in done.items():
            pairs = list(zip(done[PLAIN], trainings, strict=True))
            rows.append(
                [
                    contestant,
                    spread([training.seconds[0] for training in trainings], ".1f"),
                    spread([base.seconds[0] / training.seconds[0] for base, training in pairs]),
                    spread([mean(training.seconds[1:]) for training in trainings], ".1f"),
                    spread([mean(base.seconds[1:]) / mean(training.seconds[1:]) for base, training in pairs]),
                    spread([training.score for training in trainings], ".3f"),
                ]
            )
        return table(["", "first epoch, s", "times plain", "later epochs, s", "times plain", self.metric], rows)


def compete(
    description: str, contests: Mapping[str, tuple[Write, Contest]], *, side: int, images: int, epochs: int
) -> None:
    """Read the command line of a benchmark, let all take turns, and print.

    Args:
        description: What the command compares.
        contests: What can be compared, by name, and what writes the images; the first is compared unless the command
            line says otherwise.
        side: Side of the images in pixels.
        images: Number of training images, unless the command line says otherwise.
        epochs: Number of epochs, likewise.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--images", type=int, default=images, help="training images")
    parser.add_argument("--epochs", type=int, default=epochs, help="2 or more")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--cache", nargs="+", choices=["memory", "disk", "none"], default=["memory", "disk"])
    first, *others = contests
    if others:
        parser.add_argument("--of", choices=[first, *others], default=first, help="what is learnt")
    options = parser.parse_args()
    write, contest = contests[options.of if others else first]
    neighbours = Neighbours()
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder), options.images, options.epochs)
        write(job.folder, job.images)
        found = contest.run(job, options.cache, options.turns, neighbours)
    print(f"{job.images:,} images of {side}x{side} pixels, {options.turns} turns; median (min..max).\n")
    print(found)
    print(f"\n{facts(neighbours)}")
