"""Compares training steps that a GPU repeats as CUDA graphs with the same steps computed by Python.

    python -m benchmarks.gpu [--compiled] [--turns 3] [--epochs 3] [--images 60000] [--json FILE]

Each model trains alone on MNIST in this process: by the textbook loop (the CNN alone, with 2 workers of a DataLoader),
then by tuner's with `trial.graph: off` and with `auto`, in turns. Images per second are those of the loop after
the first epoch, in which a step is watched and recorded. Ratios are taken within a turn. Weights after the last epoch
are compared bit by bit. It runs on a CPU, too, where nothing is recorded. `--compiled` adds recorded steps with
`trial.compile: on`; their first epoch lasts as long as compiling does, if the cache of this machine has nothing.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks import machine, textbook
from benchmarks.tables import spread, table
from tuner.objectives import Objective
from tuner.report_keys import COMPILE, GRAPH
from tuner.train import checkpoint
from tuner.train.device import pick_device
from tuner.train.loop import fit
from tuner.train.trial_config import TrialConfig

SMALL, WIDE = {"kind": "resnet_small", "width": 16}, {"kind": "resnet_small", "width": 64}
MODELS: dict[str, dict[str, Any]] = {
    "CNN of the main job, batch 64": {"model": {"kind": "cnn"}, "data": {"batch_size": 64}},
    "small ResNet, width 16, 32x32, batch 128": {"model": SMALL, "data": {"batch_size": 128, "canvas": 32}},
    "small ResNet, width 64, 32x32, batch 128": {"model": WIDE, "data": {"batch_size": 128, "canvas": 32}},
    "MLP, batch 64": {"model": {"kind": "mlp"}, "data": {"batch_size": 64}},
}
TEXTBOOK, EAGER, RECORDED, COMPILED = "textbook", "graph: off", "graph: auto", "graph: auto, compile: on"
LOOPS = {EAGER: {"graph": "off"}, RECORDED: {"graph": "auto"}, COMPILED: {"graph": "auto", "compile": "on"}}


@dataclass(frozen=True)
class Turn:
    """A finished training.

    Args:
        speed: Images per second of the training loop.
        how: What the trial says of its steps; empty on a CPU.
        accuracy: On the validation set, in [0, 1].
        first: Seconds of the first epoch.
    """

    speed: float
    how: str
    accuracy: float
    first: float


def ours(
    name: str, loop: str, seed: int, images: int, epochs: int, device: torch.device
) -> tuple[Turn, dict[str, Tensor]]:
    """Train a model, and return its weights, too."""
    data = {"kind": "mnist", "limit": images} | MODELS[name]["data"]
    parts = {"optimizer": {"kind": "sgd", "lr": 0.01, "momentum": 0.9}, "epochs": epochs, "seed": seed} | LOOPS[loop]
    trial = TrialConfig.model_validate({"model": MODELS[name]["model"], "data": data} | parts)
    reports: list[dict[str, Any]] = []
    weights: dict[str, Tensor] = {}

    def report(metrics: dict[str, Any], save: checkpoint.Save) -> None:
        reports.append(metrics)
        if metrics["epoch"] == epochs:
            weights.update(save.snapshot().weights)

    fit(trial, Objective(metric="val_accuracy", mode="max"), report, device=device)
    speed = median(each["images_per_second"] for each in reports[1:])
    how = "; ".join(str(reports[-1][key]) for key in (GRAPH, COMPILE) if key in reports[-1])
    return Turn(speed, how, reports[-1]["val_accuracy"], reports[0]["epoch_seconds"]), weights


def plain(root: Path, images: int, epochs: int, seed: int, device: torch.device) -> Turn:
    """Train the CNN as a textbook does."""
    train, validation = textbook.load(root, images)
    reports: list[dict[str, float]] = []
    textbook.train(
        train,
        validation,
        lambda metrics, model: reports.append(metrics),
        lr=0.01,
        momentum=0.9,
        epochs=epochs,
        seed=seed,
        device=device,
        workers=2,
    )
    speed = median(each["images_per_second"] for each in reports[1:])
    return Turn(speed, "", reports[-1]["val_accuracy"], reports[0]["epoch_seconds"])


def rows(turns: dict[str, dict[str, list[Turn]]]) -> Iterable[list[str]]:
    """Yield a row for each model and loop: images per second, and the ratio to the eager loop of the same turn."""
    for name, loops in turns.items():
        for loop, of_it in loops.items():
            ratios = [turn.speed / base.speed for turn, base in zip(of_it, loops[EAGER], strict=True)]
            accuracy = f"{median(turn.accuracy for turn in of_it):.4f}"
            speeds = spread([turn.speed for turn in of_it], ",.0f")
            first = spread([turn.first for turn in of_it], ".1f")
            yield [name, loop, speeds, spread(ratios), first, accuracy, of_it[-1].how]


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description="Images per second: recorded steps against eager ones.")
    parser.add_argument("--compiled", action="store_true", help="also with trial.compile: on")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="2 or more; the first is not counted")
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    device, neighbours = pick_device(), machine.Neighbours()
    own = [EAGER, RECORDED, *([COMPILED] if options.compiled else [])]
    turns: dict[str, dict[str, list[Turn]]] = {name: {loop: [] for loop in own} for name in MODELS}
    turns[next(iter(MODELS))][TEXTBOOK] = []
    same: dict[str, bool] = dict.fromkeys(MODELS, True)
    with tempfile.TemporaryDirectory(prefix="tuner-mnist-") as folder:
        root = machine.extract_mnist(Path(folder))
        for seed in range(options.turns):
            for name, loops in turns.items():
                neighbours.look()
                if TEXTBOOK in loops:
                    loops[TEXTBOOK].append(plain(root, min(options.images, 10_000), options.epochs, seed, device))
                found = {loop: ours(name, loop, seed, options.images, options.epochs, device) for loop in own}
                for loop, (turn, _) in found.items():
                    loops[loop].append(turn)
                first, second = found[EAGER][1], found[RECORDED][1]
                same[name] &= all(torch.equal(value, second[key]) for key, value in first.items())

    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    print(f"On {card}; {options.turns} turns, {options.epochs} epochs of up to {options.images:,} images.\n")
    print(table(["", "loop", "images/s", "times eager", "first epoch, s", "val_accuracy", "steps"], rows(turns)))
    print("\nWeights of eager and recorded training after the last epoch, bit by bit:")
    print("\n".join(f"- {name}: {'equal' if value else 'different'}" for name, value in same.items()))
    print(f"\n{machine.facts(neighbours)}")
    if options.json:
        figures = {
            name: {loop: [asdict(each) for each in of_it] for loop, of_it in loops.items()}
            for name, loops in turns.items()
        }
        options.json.write_text(json.dumps({"card": card, "turns": figures, "same": same}, indent=1))


if __name__ == "__main__":
    main()
