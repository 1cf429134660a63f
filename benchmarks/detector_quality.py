"""Compares detectors at equal time: `yolo` against SSDlite and FCOS of torchvision, on scenes of digits.

    python -m benchmarks.detector_quality [--minutes 3] [--turns 3] [--scenes 4000]

All are trained from new weights by `tuner.train.loop.fit` on the same scenes of 64x64 pixels, with AdamW and one-cycle,
on 2 threads, for as many epochs as fit into the time: an epoch of each is timed before. They run in turns in new
processes; the figure is the mean average precision on scenes of digits that no training has seen.
"""

import argparse
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks import machine
from benchmarks.epochs import THREADS
from benchmarks.tables import spread, table

_MODELS: dict[str, tuple[dict[str, Any], float]] = {
    "yolo": ({"kind": "yolo"}, 3e-3),
    "SSDlite": ({"kind": "torchvision", "name": "ssdlite320_mobilenet_v3_large"}, 1e-3),
    "FCOS": ({"kind": "torchvision", "name": "fcos_resnet50_fpn"}, 3e-4),
}
"""The models, and the learning rate of each."""


def _trial(contestant: str, scenes: int, epochs: int, seed: int) -> Any:
    from tuner.train.trial_config import TrialConfig

    model, rate = _MODELS[contestant]
    return TrialConfig.model_validate(
        {
            "task": {"kind": "detection"},
            "data": {"kind": "mnist_scenes", "offline": "digits", "scenes": scenes, "batch_size": 32},
            "model": model,
            "optimizer": {"kind": "adamw", "lr": rate, "weight_decay": 0.01},
            "schedule": {"kind": "one_cycle"},
            "epochs": epochs,
            "seed": seed,
        }
    )


def train(contestant: str, scenes: int, epochs: int, seed: int) -> tuple[float, dict[str, float]]:
    """Train for some epochs; return the seconds, and what was measured at the end."""
    import torch

    from tuner.objectives import Objective
    from tuner.train.device import keep_freed_memory
    from tuner.train.loop import fit

    torch.set_num_threads(THREADS)
    keep_freed_memory()  # as every trial does
    config = _trial(contestant, scenes, epochs, seed).prepare()[0]
    last: dict[str, Any] = {}
    config.data.load()  # making scenes is not training
    started = time.perf_counter()
    fit(config, Objective(metric="val_map", mode="max"), lambda metrics, _: last.update(metrics))
    return time.perf_counter() - started, last


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description="Detectors at equal training time: yolo against torchvision's.")
    parser.add_argument("--minutes", type=float, default=3, help="of each training")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=4000, help="training scenes")
    options = parser.parse_args()
    neighbours, spawn = machine.Neighbours(), multiprocessing.get_context("spawn")

    def trained(contestant: str, epochs: int, seed: int, scenes: int) -> tuple[float, dict[str, float]]:
        neighbours.look()
        with ProcessPoolExecutor(1, spawn) as pool:
            return pool.submit(train, contestant, scenes, epochs, seed).result()

    epochs = {}
    for contestant in _MODELS:
        seconds, _ = trained(contestant, 1, 0, options.scenes)  # whole: the first steps of some take long
        epochs[contestant] = max(1, round(options.minutes * 60 / seconds))
    done: dict[str, list[tuple[float, dict[str, float]]]] = {contestant: [] for contestant in _MODELS}
    for seed in range(options.turns):
        for contestant, results in done.items():
            results.append(trained(contestant, epochs[contestant], seed, options.scenes))
            print(f"turn {seed + 1}: {contestant}: {results[-1]}", file=sys.stderr)
    rows = [
        [
            contestant,
            f"{results[0][1]['parameters'] / 1e6:.1f}",
            str(epochs[contestant]),
            spread([seconds / 60 for seconds, _ in results], ".1f"),
            spread([metrics["val_map"] for _, metrics in results], ".3f"),
            spread([metrics["val_map50"] for _, metrics in results], ".3f"),
            spread([metrics["latency_ms"] for _, metrics in results], ".0f"),
        ]
        for contestant, results in done.items()
    ]
    print(f"{options.scenes:,} scenes of 64x64 pixels, {options.turns} turns; median (min..max).\n")
    print(table(["", "million parameters", "epochs", "minutes", "mAP", "mAP50", "latency, ms"], rows))
    print(f"\n{machine.facts(neighbours)}")


if __name__ == "__main__":
    main()
