"""Compares search with and without ASHA: the best value of the objective, and epochs trained.

    python -m benchmarks.early_stopping [--of digits scenes] [--seeds 20] [--processes 2]

Each pool of random configurations is trained once, for all epochs; the objective after every epoch is stored beside
this file. They are a small CNN on scikit-learn's digits, and the detector of `experiments/scenes_yolo.yaml`. Each seed
then draws its trials from a pool and replays them twice: to the last epoch, and under Ray Tune's ASHA class, configured
by `tuner.search.schedulers.ASHA`. Both replay the same curves in the same order, so that they differ in the early
stopping only, and every number was measured.
"""

import argparse
import json
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.tables import table

_SEED = 0


@dataclass(frozen=True)
class Pool:
    """Configurations that are trained once.

    Args:
        file: The file of their curves: a JSON list for each, with the objective after each epoch, times `scale`.
        objective: The metric.
        scale: What makes whole numbers of the objective: 300 validation images, or 10,000 for four digits.
        size: Number of configurations.
        epochs: Number of epochs that each is trained.
        lengths: Numbers of epochs of the searches.
        trials: Numbers of trials of the searches.
        config: The configuration with a number, without its seed.
    """

    file: str
    objective: str
    scale: int
    size: int
    epochs: int
    lengths: tuple[int, ...]
    trials: tuple[int, ...]
    config: Callable[[np.random.Generator], Mapping[str, Any]]


def _digits(rng: np.random.Generator) -> Mapping[str, Any]:
    return {
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
    }


def _scenes(rng: np.random.Generator) -> Mapping[str, Any]:
    """The trial of the experiment with fewer scenes and a narrower model, in a space that is wider than its own."""
    from tuner.spec.loader import load

    trial = load(_SCENES).trial.model_dump(mode="json")
    trial["data"] |= {
        "limit": 2000,
        "augment": {"zoom": float(rng.uniform(1, 1.6)), "color": float(rng.uniform(0, 0.5))},
    }
    trial["model"] |= {"width": 16, "class_gain": float(np.exp(rng.uniform(np.log(0.25), np.log(8))))}
    trial["optimizer"] |= {
        "lr": float(np.exp(rng.uniform(np.log(3e-4), np.log(3e-2)))),
        "weight_decay": float(np.exp(rng.uniform(np.log(1e-3), np.log(0.3)))),
    }
    return trial


_SCENES = Path(__file__).parents[1] / "experiments" / "scenes_yolo.yaml"

POOLS = {
    "digits": Pool("digits_curves.json", "val_accuracy", 300, 400, 27, (9, 27), (20, 40, 80), _digits),
    "scenes": Pool("scenes_curves.json", "val_ema_map50", 10_000, 40, 9, (9,), (12, 20), _scenes),
}


def train(of: str, number: int) -> list[int]:
    """Train a configuration of a pool and return its curve; a training that diverges repeats its last value."""
    import torch

    from tuner.objectives import Objective
    from tuner.train.checkpoint import Save
    from tuner.train.evaluation import Diverged
    from tuner.train.loop import fit
    from tuner.train.trial_config import TrialConfig

    torch.set_num_threads(1)
    found = POOLS[of]
    chosen = found.config(np.random.default_rng([_SEED, number]))
    config = TrialConfig.model_validate(dict(chosen) | {"epochs": found.epochs, "seed": number})
    curve: list[int] = []

    def report(metrics: dict[str, Any], save: Save) -> None:
        curve.append(round(metrics[found.objective] * found.scale))

    try:
        fit(config, Objective.of_metric(found.objective), report)
    except Diverged:
        curve += [curve[-1] if curve else 0] * (found.epochs - len(curve))
    return curve


def curves_of(of: str, processes: int) -> list[list[float]]:
    """Return the curves of a pool; those that its file lacks are trained first."""
    found = POOLS[of]
    file = Path(__file__).with_name(found.file)
    curves: list[list[int]] = json.loads(file.read_text()) if file.exists() else []
    if len(curves) < found.size:
        with multiprocessing.get_context("spawn").Pool(processes) as workers:
            for curve in workers.imap(partial(train, of), range(len(curves), found.size)):
                curves.append(curve)
                file.write_text("[\n" + ",\n".join(map(json.dumps, curves)) + "\n]\n")
    return [[value / found.scale for value in curve] for curve in curves[: found.size]]


def under_asha(curves: Sequence[Sequence[float]], metric: str, grace: int) -> tuple[float, int]:
    """Return the best value and the number of epochs trained if ASHA stops trials early.

    Trials run one after another: ASHA decides when a trial reaches a rung, from the trials that reached it before, so
    parallel trials with epochs of equal length get the same decisions.
    """
    from tuner.objectives import Objective
    from tuner.ray_backend.schedulers import ray_class_of
    from tuner.report_keys import TIME
    from tuner.search.schedulers import ASHA

    objective = Objective.of_metric(metric)
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
    parser.add_argument("--of", nargs="+", choices=POOLS, default=list(POOLS), help="the pools of configurations")
    parser.add_argument("--seeds", type=int, default=20, help="paired searches")
    parser.add_argument("--processes", type=int, default=2, help="trainings side by side, one thread each")
    arguments = parser.parse_args()
    neighbours = machine.Neighbours()
    neighbours.look()
    rows = []
    for of in arguments.of:
        curves = curves_of(of, arguments.processes)
        for epochs, trials in product(POOLS[of].lengths, POOLS[of].trials):
            rows.append([of, *_compared(curves, POOLS[of].objective, epochs, trials, arguments.seeds)])
    print(f"{arguments.seeds} paired seeds; mean ± standard error\n")
    header = [
        "configurations",
        "trials x epochs",
        "rungs",
        "best, to the end",
        "best, with ASHA",
        "difference",
        "share of the epochs",
    ]
    print(table(header, rows))
    print()
    print(machine.facts(neighbours))


def _compared(curves: Sequence[Sequence[float]], metric: str, epochs: int, trials: int, seeds: int) -> list[str]:
    """Search with each seed, to the end and with ASHA; the cells of the table."""
    full, stopped, share = [], [], []
    for seed in range(seeds):
        drawn = np.random.default_rng(seed).choice(len(curves), trials, replace=False)
        trained = [curves[i][:epochs] for i in drawn]
        best, spent = under_asha(trained, metric, grace=epochs // 9)
        full.append(max(max(curve) for curve in trained))
        stopped.append(best)
        share.append(spent / (epochs * trials))
    difference = [a - b for a, b in zip(stopped, full, strict=True)]
    rungs = ", ".join(str(epochs // 9 * 3**rung) for rung in range(2))
    means = [_mean(full), _mean(stopped), _mean(difference)]
    return [f"{trials} x {epochs}", rungs, *means, f"{mean(share):.1%} ({min(share):.0%} to {max(share):.0%})"]


def _mean(values: Sequence[float]) -> str:
    return f"{mean(values):.4f} ± {stdev(values) / len(values) ** 0.5:.4f}"


if __name__ == "__main__":
    main()
