"""Compares the textbook training loop with tuner's: images per second, and validation accuracy.

    python -m benchmarks.training_speed [--images 20000] [--epochs 2] [--seeds 5] [--pair]

All train the same CNN on the same images, batch 64, SGD with the same learning rate and momentum, on 2 CPU cores:

- textbook: `benchmarks/textbook.py`, one training on 2 threads;
- ours, auto and ours, float32: `tuner.train.loop.fit` in two processes in parallel, one thread each, like parallel
  trials under Ray Tune; auto is bfloat16 if the CPU supports it natively, else float32;
- with --pair, also the textbook loop in two processes in parallel, one thread each.

They run in turns, one turn a seed, each in new processes that first import and load, then wait for each other. Images
per second are those of the training loop; "with validation", of the full epochs. The slower one of two parallel
trainings determines the time. Ratios are taken within a turn.
"""

import argparse
import math
import multiprocessing
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from threading import Barrier
from typing import Any

from benchmarks import machine
from benchmarks.tables import spread, table

LR, MOMENTUM = 0.01, 0.9
_THREADS = 2  # of all processes together
_PATIENCE = 300.0  # seconds to wait for the other process to be ready

_ready: Barrier
"""The barrier at which the processes of a turn wait for each other; set in each of them."""


@dataclass(frozen=True)
class Contestant:
    """A training loop that is measured, in parallel processes: tuner's, or the textbook one if `precision` is None."""

    name: str
    processes: int
    precision: str | None = None


TEXTBOOK = Contestant("textbook, 2 threads", 1)
PAIR = Contestant("textbook, 2 x 1 thread", 2)
OURS = (Contestant("ours, auto", 2, "auto"), Contestant("ours, float32", 2, "float32"))


@dataclass(frozen=True)
class Training:
    """A finished training: seconds in its training loop, seconds of its full epochs, accuracy after the last one."""

    seconds: float
    whole: float
    accuracy: float


@dataclass(frozen=True)
class Turn:
    """A turn of a contestant: images per second of all its processes together, accuracy of each training."""

    training: float
    whole: float
    accuracies: list[float]


def take_turn(contestant: Contestant, root: Path, images: int, epochs: int, seeds: list[int]) -> Turn:
    """Train in new processes in parallel, one for each seed."""
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(len(seeds))
    with ProcessPoolExecutor(len(seeds), spawn, initializer=_share, initargs=(barrier,)) as pool:
        futures = [pool.submit(_train, contestant, root, images, epochs, seed) for seed in seeds]
        trainings = [future.result() for future in futures]
    total = images * epochs * len(seeds)
    return Turn(
        total / max(training.seconds for training in trainings),
        total / max(training.whole for training in trainings),
        [training.accuracy for training in trainings],
    )


def _share(barrier: Barrier) -> None:
    global _ready  # a barrier can be given to a process only when it starts
    _ready = barrier


def _train(contestant: Contestant, root: Path, images: int, epochs: int, seed: int) -> Training:
    import torch

    torch.set_num_threads(_THREADS // contestant.processes)
    if contestant.precision is None:
        reports = _train_textbook(root, images, epochs, seed)
    else:
        reports = _train_ours(contestant.precision, images, epochs, seed)
    return Training(
        sum(images / report["images_per_second"] for report in reports),
        sum(report["epoch_seconds"] for report in reports),
        reports[-1]["val_accuracy"],
    )


def _train_textbook(root: Path, images: int, epochs: int, seed: int) -> list[dict[str, float]]:
    from benchmarks import textbook

    train_set, validation_set = textbook.load(root, images)
    reports: list[dict[str, float]] = []
    _ready.wait(_PATIENCE)
    textbook.train(
        train_set,
        validation_set,
        lambda metrics, model: reports.append(metrics),
        lr=LR,
        momentum=MOMENTUM,
        epochs=epochs,
        seed=seed,
    )
    return reports


def _train_ours(precision: str, images: int, epochs: int, seed: int) -> list[dict[str, Any]]:
    import torch

    from tuner.spec.loader import load
    from tuner.train.device import keep_freed_memory
    from tuner.train.loop import fit
    from tuner.train.trial_config import TrialConfig

    optimizer = f"trial.optimizer={{kind: sgd, lr: {LR}, momentum: {MOMENTUM}}}"
    size = [f"trial.data.limit={images}", f"trial.epochs={epochs}"]
    spec = load(machine.GRID, [optimizer, *size, f"trial.precision={precision}", f"trial.seed={seed}"])
    trial = spec.trial
    assert isinstance(trial, TrialConfig)
    keep_freed_memory()  # as every trial does
    trial.data.load()  # cached in memory for `fit`
    reports: list[dict[str, Any]] = []
    _ready.wait(_PATIENCE)
    fit(trial, spec.objective, lambda metrics, save: reports.append(metrics), device=torch.device("cpu"))
    return reports


def speed_rows(turns: dict[Contestant, list[Turn]]) -> Iterable[list[str]]:
    """Yield a row for each contestant: images per second, and the ratio to the textbook loop in the same turn."""
    for contestant, of_it in turns.items():
        pairs = list(zip(of_it, turns[TEXTBOOK], strict=True))
        yield [
            contestant.name,
            spread([turn.training for turn in of_it], ",.0f"),
            spread([turn.training / base.training for turn, base in pairs]),
            spread([turn.whole for turn in of_it], ",.0f"),
            spread([turn.whole / base.whole for turn, base in pairs]),
        ]


def accuracy_rows(turns: dict[Contestant, list[Turn]]) -> Iterable[list[str]]:
    """Yield a row for each contestant: mean, standard deviation, n, difference from the textbook loop with error."""
    reached = {contestant: [a for turn in of_it for a in turn.accuracies] for contestant, of_it in turns.items()}
    base = reached[TEXTBOOK]
    for contestant, values in reached.items():
        error = math.hypot(_deviation(values) / len(values) ** 0.5, _deviation(base) / len(base) ** 0.5)
        difference = "" if values is base else f"{mean(values) - mean(base):+.4f} ± {error:.4f}"
        yield [contestant.name, f"{mean(values):.4f}", f"{_deviation(values):.4f}", str(len(values)), difference]


def _deviation(values: list[float]) -> float:
    return stdev(values) if len(values) > 1 else math.nan


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description="Images per second of training: the textbook loop against ours.")
    parser.add_argument("--images", type=int, default=20_000, help="training images, up to 55,000")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=5, help="turns, each with a seed of its own for every training")
    parser.add_argument("--pair", action="store_true", help="also two textbook loops at once, one thread each")
    options = parser.parse_args()
    contestants = [TEXTBOOK, *([PAIR] if options.pair else []), *OURS]
    neighbours = machine.Neighbours()

    turns: dict[Contestant, list[Turn]] = {contestant: [] for contestant in contestants}
    with tempfile.TemporaryDirectory(prefix="tuner-mnist-") as name:
        root = machine.extract_mnist(Path(name))
        for number in range(options.seeds):
            for contestant in contestants:
                seeds = [number + options.seeds * process for process in range(contestant.processes)]
                neighbours.look()
                turn = take_turn(contestant, root, options.images, options.epochs, seeds)
                turns[contestant].append(turn)
                print(f"turn {number + 1}: {contestant.name}: {turn.training:,.0f} images/s", file=sys.stderr)

    print(
        f"Training the CNN, batch 64, SGD lr {LR} momentum {MOMENTUM}, {options.epochs} epochs of "
        f"{options.images:,} images, {options.seeds} turns; median (min..max).\n"
    )
    header = ["", "images/s training", "times textbook", "images/s with validation", "times textbook"]
    print(table(header, speed_rows(turns)), end="\n\n")
    header = ["", "val_accuracy, mean", "standard deviation", "n", "difference ± its standard error"]
    print(table(header, accuracy_rows(turns)))
    print(f"\n{machine.facts(neighbours)}")


if __name__ == "__main__":
    main()
