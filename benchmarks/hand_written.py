"""Compares a search that `tuner init` wrote with a ResNet that somebody wrote by hand, in the same time.

    python -m benchmarks.hand_written FOLDER [--minutes 20] [--sides hand ours]

FOLDER has `train/` and `test/`, each with a folder of images for each class, 32 pixels wide and high.

- hand: the ResNet-20 that He et al. made for CIFAR, with the recipe that goes with it: flips, shifts by 4 pixels, SGD
  with Nesterov momentum 0.9, weight decay 5e-4, one-cycle up to 0.1, batch 64; torchvision's ImageFolder and a
  DataLoader with 2 workers, all cores. All of these settings are known beforehand to suit such images. It is trained
  once, for as many epochs as the time has room for, which timing an epoch tells.
- ours: `tuner init FOLDER --time 20m`, then `tuner run --time 20m` of the file that it writes, as they are.

Both hold a tenth of the training images out, and are measured once on the test images. They run one after the other.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import yaml
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from benchmarks import machine
from benchmarks.tables import table
from benchmarks.textbook import accuracy

_BATCH, _SHIFT, _WORKERS, _SEED = 64, 4, 2, 0
_LR, _MOMENTUM, _DECAY = 0.1, 0.9, 5e-4
_WIDTHS = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)  # of the stem and of nine blocks
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True)
class Outcome:
    """What a side reached.

    Args:
        accuracy: On the test images.
        seconds: Of everything, from the first command on.
        trained: What was trained, as a phrase.
    """

    accuracy: float
    seconds: float
    trained: str


def hand(folder: Path, minutes: float) -> Outcome:
    """Train the ResNet-20 for a time."""
    began = time.perf_counter()
    torch.manual_seed(_SEED)
    tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)])
    changes = [transforms.RandomCrop(32, padding=_SHIFT), transforms.RandomHorizontalFlip()]
    training = datasets.ImageFolder(str(folder / "train"), transforms.Compose([*changes, tensor]))
    test = datasets.ImageFolder(str(folder / "test"), tensor)
    classes = len(training.classes)
    kept = torch.randperm(len(training))[len(training) // 10 :].tolist()
    loader = DataLoader(Subset(training, kept), _BATCH, shuffle=True, num_workers=_WORKERS, persistent_workers=True)
    _train(_resnet20(classes), loader, 1)  # the workers start
    started = time.perf_counter()
    _train(_resnet20(classes), loader, 1)
    epoch = time.perf_counter() - started
    epochs = max(1, int((60 * minutes - (time.perf_counter() - began)) / epoch))
    model = _resnet20(classes)
    _train(model, loader, epochs)
    reached = accuracy(model, DataLoader(test, 250, num_workers=_WORKERS))
    return Outcome(reached, time.perf_counter() - began, f"a ResNet-20, {epochs} epochs")


def _train(model: nn.Module, loader: "DataLoader[object]", epochs: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=_LR, momentum=_MOMENTUM, nesterov=True, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=_LR, total_steps=epochs * len(loader))
    model.train()
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()


class _Block(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        stride = 1 if channels == width else 2
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.shortcut = nn.Identity() if stride == 1 else shortcut

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.relu(self.convolutions(images) + self.shortcut(images))


def _resnet20(classes: int) -> nn.Module:
    stem = [nn.Conv2d(3, _WIDTHS[0], 3, padding=1, bias=False), nn.BatchNorm2d(_WIDTHS[0]), nn.ReLU()]
    blocks = [_Block(channels, width) for channels, width in pairwise(_WIDTHS)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(_WIDTHS[-1], classes))


def ours(folder: Path, minutes: float) -> Outcome:
    """Let `tuner init` write a search, and run it."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "images.yaml"
        _tuner(place, "init", str(folder), "--time", f"{minutes:g}m", "-o", str(file))
        text = file.read_text(encoding="utf-8")
        print(text, file=sys.stderr)
        _tuner(place, "run", str(file), "--time", f"{minutes:g}m")
        seconds = time.perf_counter() - began
        command = [sys.executable, "-m", "tuner", "best", yaml.safe_load(text)["name"], "--json"]
        best = json.loads(subprocess.check_output(command, cwd=place, env=machine.environment()))
    ends = ", ".join(f"{count} {status}" for status, count in best["trials"].items() if count and status != "planned")
    return Outcome(best["test"]["test_accuracy"], seconds, f"trials: {ends}")


def _tuner(place: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "tuner", *arguments]
    subprocess.run(command, cwd=place, env=machine.environment(), check=True, stdout=sys.stderr)


SIDES = {"hand": hand, "ours": ours}


def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=lambda text: Path(text).resolve())
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    asked = parser.parse_args()
    neighbours = machine.Neighbours()
    rows = []
    for side in asked.sides:
        neighbours.look()
        outcome = SIDES[side](asked.folder, asked.minutes)
        rows.append((side, f"{outcome.accuracy:.3f}", f"{outcome.seconds / 60:.1f}", outcome.trained))
    print(table(("", "test accuracy", "minutes", "what was trained"), rows))
    print(f"\n{machine.facts(neighbours)}")


if __name__ == "__main__":
    main()
