"""Compares search with and without ASHA: best validation accuracy, and epochs trained.

    python -m benchmarks.early_stopping [--pool 400] [--trials 20 40 80] [--seeds 20] [--processes 2]

A pool of random configurations of a small CNN is trained on scikit-learn's digits once, for all epochs; the validation
accuracy of every epoch is stored in `CURVES`. Each seed then draws its trials from the pool and replays them twice: to
the last epoch, and under Ray Tune's ASHA class, configured by `tuner.search.schedulers.ASHA`. Both replay the same
curves in the same order, so that they differ in the early stopping only, and every number was measured.
"""

import argparse
import json
import multiprocessing
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.tables import table

CURVES = Path(__file__).with_name("digits_curves.json")
"""One list a configuration: after each epoch, how many of the 300 validation images it classified correctly."""
EPOCHS = 27
_IMAGES = 300  # validation images
_SEED = 0


def train(number: int) -> list[int]:
    """Train a configuration of the pool and return its curve; a training that diverges repeats its last value."""
    import torch

    from tuner.objectives import Objective
    from tuner.train.checkpoint import Save
    from tuner.train.evaluation import Diverged
    from tuner.train.loop import fit
    from tuner.train.trial_config import TrialConfig

    torch.set_num_threads(1)
    rng = np.random.default_rng([_SEED, number])
    config = TrialConfig.model_validate(
        {
            "data": {"kind": "digits", "batch_size": int(rng.choice([16, 32, 64]))},
            "model": {
                "kind": "cnn",
                "width1": int(rng.choice([4, 8, 16])),
                "width2": int(rng.choice([8, 16, 32])),
                "hidden": 32,
                "dropout": float(rng.uniform(0, 0.5)),
            },
            "optimizer": {
                "kind": "sgd",
                "lr": float(np.exp(rng.uniform(np.log(1e-3), np.log(0.5)))),
                "momentum": float(rng.uniform(0, 0.98)),
            },
            "epochs": EPOCHS,
            "seed": number,
        }
    )
    curve: list[int] = []

    def report(metrics: dict[str, Any], save: Save) -> None:
        curve.append(round(metrics["val_accuracy"] * _IMAGES))

    try:
        fit(config, Objective.of_metric("val_accuracy"), report)
    except Diverged:
        curve += [curve[-1] if curve else 0] * (EPOCHS - len(curve))
    return curve


def pool(size: int, processes: int) -> list[list[float]]:
    """Return the curves of the pool; those that `CURVES` lacks are trained first."""
    curves: list[list[int]] = json.loads(CURVES.read_text()) if CURVES.exists() else []
    if len(curves) < size:
        with multiprocessing.get_context("spawn").Pool(processes) as workers:
            for curve in workers.imap(train, range(len(curves), size)):
                curves.append(curve)
                CURVES.write_text("[\n" + ",\n".join(map(json.dumps, curves)) + "\n]\n")
    return [[right / _IMAGES for right in curve] for curve in curves[:size]]


def under_asha(curves: Sequence[Sequence[float]], grace: int) -> tuple[float, int]:
    """Return the best accuracy and the number of epochs trained if ASHA stops trials early.

    Trials run one after another: ASHA decides when a trial reaches a rung, from the trials that reached it before, so
    parallel trials with epochs of equal length get the same decisions.
    """
    from tuner.objectives import Objective
    from tuner.ray_backend.schedulers import ray_class_of
    from tuner.report_keys import TIME
    from tuner.search.schedulers import ASHA

    objective = Objective.of_metric("val_accuracy")
    asha = ASHA(grace=grace, reduction=3)
    ray_class, arguments = ray_class_of(asha), asha.arguments(objective, len(curves[0]), {})
    scheduler = ray_class(**arguments)
    controller = SimpleNamespace(search_alg=None)
    best, spent = 0.0, 0
    for number, curve in enumerate(curves):
        trial = SimpleNamespace(trial_id=str(number))
        scheduler.on_trial_add(controller, trial)
        for epoch, value in enumerate(curve, start=1):
            best, spent = max(best, value), spent + 1
            if scheduler.on_trial_result(controller, trial, {TIME: epoch, objective.metric: value}) == ray_class.STOP:
                break
    return best, spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=int, default=400, help="configurations that are trained")
    parser.add_argument("--trials", type=int, nargs="+", default=[20, 40, 80], help="trials a search")
    parser.add_argument("--seeds", type=int, default=20, help="paired searches")
    parser.add_argument("--processes", type=int, default=2, help="trainings side by side, one thread each")
    arguments = parser.parse_args()
    curves = pool(arguments.pool, arguments.processes)
    neighbours = machine.Neighbours()
    neighbours.look()
    rows = []
    for epochs, trials in product((9, EPOCHS), arguments.trials):
        full, stopped, share = [], [], []
        for seed in range(arguments.seeds):
            drawn = np.random.default_rng(seed).choice(len(curves), trials, replace=False)
            trained = [curves[i][:epochs] for i in drawn]
            best, spent = under_asha(trained, grace=epochs // 9)
            full.append(max(max(curve) for curve in trained))
            stopped.append(best)
            share.append(spent / (epochs * trials))
        difference = [a - b for a, b in zip(stopped, full, strict=True)]
        rungs = ", ".join(str(epochs // 9 * 3**rung) for rung in range(2))
        rows.append(
            [f"{trials} x {epochs}", rungs, _mean(full), _mean(stopped), _mean(difference), f"{mean(share):.1%}"]
        )
    print(f"{arguments.seeds} paired seeds; mean ± standard error\n")
    header = ["trials x epochs", "rungs", "best, to the end", "best, with ASHA", "difference", "share of the epochs"]
    print(table(header, rows))
    print()
    print(machine.facts(neighbours))


def _mean(values: Sequence[float]) -> str:
    return f"{mean(values):.4f} ± {stdev(values) / len(values) ** 0.5:.4f}"


if __name__ == "__main__":
    main()
