"""Trains the full grid of a small CNN on scikit-learn's digits, so that a search can look up measured results.

    python -m benchmarks.digits_table [--processes 2]

Trains every configuration of `SPACE` with `SEEDS` seeds, one thread a process, and writes the mean loss on the 300
validation images to `TABLE`; started again, it trains only what is missing. `benchmarks.search_quality` looks up its
trials there: hundreds of searches take seconds, and the best configuration is known.
"""

import argparse
import csv
import math
import multiprocessing
import sys
import time
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

TABLE = Path(__file__).with_name("digits_table.csv")
"""One line a configuration: its values, and the mean validation loss."""
SPACE: dict[str, list[float]] = {
    "lr": [0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5],
    "momentum": [0.0, 0.5, 0.8, 0.9, 0.95],
    "dropout": [0.0, 0.2, 0.4],
    "width": [4, 8, 16, 32],
    "batch_size": [16, 32, 64],
}
"""The values of each key in ascending order: 1,440 configurations."""
SEEDS = 3
"""Trainings a configuration."""
EPOCHS = 3
"""Epochs a training."""


def read() -> dict[tuple[float, ...], float]:
    """Return the mean validation loss by configuration (values in the order of `SPACE`); NaN if it diverged."""
    if not TABLE.exists():
        return {}
    with TABLE.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return {tuple(float(row[name]) for name in SPACE): float(row["val_loss"]) for row in rows}


def is_whole() -> bool:
    """Return whether the table has every configuration."""
    return set(read()) == set(product(*SPACE.values()))


def train(configuration: tuple[float, ...]) -> float:
    """Return the validation loss of a configuration after its last epoch, averaged over seeds; NaN if one diverged."""
    import torch

    from tuner.objectives import Objective
    from tuner.train.checkpoint import Save
    from tuner.train.evaluation import Diverged
    from tuner.train.loop import fit
    from tuner.train.trial_config import TrialConfig

    torch.set_num_threads(1)
    values = dict(zip(SPACE, configuration, strict=True))
    width = int(values["width"])
    losses = []
    for seed in range(SEEDS):
        trial = TrialConfig.model_validate(
            {
                "data": {"kind": "digits", "batch_size": int(values["batch_size"])},
                "model": {
                    "kind": "cnn",
                    "width1": width,
                    "width2": 2 * width,
                    "hidden": 64,
                    "dropout": values["dropout"],
                },
                "optimizer": {"kind": "sgd", "lr": values["lr"], "momentum": values["momentum"]},
                "epochs": EPOCHS,
                "precision": "float32",  # the same on every CPU
                "seed": seed,
            }
        )
        reports: list[dict[str, Any]] = []
        objective = Objective.of_metric("val_loss")

        def report(metrics: dict[str, Any], save: Save, to: list[dict[str, Any]] = reports) -> None:
            to.append(metrics)

        try:
            fit(trial, objective, report, device=torch.device("cpu"))
        except Diverged:
            return math.nan
        losses.append(float(reports[-1]["val_loss"]))
    return fmean(losses)


def main() -> None:
    """Train the configurations that the table lacks."""
    parser = argparse.ArgumentParser(description="Train a grid of small CNNs on digits, whole.")
    parser.add_argument("--processes", type=int, default=2, help="trainings side by side, one thread each")
    options = parser.parse_args()
    known = read()
    missing = [each for each in product(*SPACE.values()) if each not in known]
    started = time.perf_counter()
    with TABLE.open("a", newline="", buffering=1) as lines:
        writer = csv.writer(lines, lineterminator="\n")
        if not known:
            writer.writerow([*SPACE, "val_loss"])
        with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
            for number, loss in enumerate(pool.imap(train, missing, chunksize=8)):
                writer.writerow([*(f"{value:g}" for value in missing[number]), f"{loss:.5g}"])
                if number % 48 == 47:
                    seconds = time.perf_counter() - started
                    print(f"{number + 1} of {len(missing)} in {seconds:.0f} s", file=sys.stderr)
    losses = {configuration: loss for configuration, loss in read().items() if math.isfinite(loss)}
    best = min(losses, key=lambda configuration: losses[configuration])
    print(f"{len(losses)} configurations, and {len(read()) - len(losses)} that diverged.")
    print(f"The best is {dict(zip(SPACE, best, strict=True))} with val_loss {losses[best]:.5g}.")


if __name__ == "__main__":
    main()
