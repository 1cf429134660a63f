"""ResNet-50 at ImageNet's size: tuner's loop against a plain, well-written one, and against what the card computes."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.gpu.figures import Figure
from benchmarks.gpu.large_model import arithmetic, pictures, plain
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.training import ours
from tuner.train.device import use_threads

_TIMES, _SHARE = 0.95, 0.4
"""How many times the plain loop, and which share of the rate of matrix multiplication, are aimed at."""
_PLAIN, _DISK, _EAGER, _MEMORY = "plain loop", "from the disk", "from the disk, `graph: off`", "from memory"
_PROCESSES = 8


def measure(setting: Setting) -> Iterator[Figure]:
    """Generate images, and let the loops train in turns."""
    side, batch = setting.sized(224, 32), setting.sized(128, 4)
    count = batch * setting.sized(20, 10)
    epochs = setting.sized(3, 2)
    use_threads(setting.sized(min(_PROCESSES, setting.cores), 1))
    folder = Path(setting.folder) / "pictures"
    os.environ["TUNER_DATA_DIR"] = str(Path(setting.folder) / "decoded")
    file = pictures.generate(folder, count * 3 // 2, side)
    images = plain.Mapped(file, count, pictures.CLASSES)
    workers = setting.sized(min(_PROCESSES, setting.cores), 0)

    def by_plain() -> float:
        return plain.images_per_second(
            images, _resnet50(), batch=batch, epochs=epochs, workers=workers, device=setting.device
        )

    trial = _trial(folder, side, batch, count) | {"epochs": epochs}
    disk, memory = ({**trial, "data": trial["data"] | {"cache": cache}} for cache in ("disk", "memory"))
    loops: dict[str, Callable[[int], float]] = {
        _PLAIN: lambda seed: by_plain(),
        _EAGER: lambda seed: ours(setting, {**disk, "graph": "off"}, seed).speed,
        _DISK: lambda seed: ours(setting, disk, seed).speed,
        _MEMORY: lambda seed: ours(setting, memory, seed).speed,
    }
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    rates: list[float] = []
    for turn in setting.turns(setting.sized(2, 1)):
        rates.append(arithmetic.multiplication_rate(setting.device, setting.sized(8192, 256)))
        for name, loop in loops.items():
            speeds[name].append(loop(turn))
    for name, of_it in speeds.items():
        times = [mine / base for mine, base in zip(of_it, speeds[_EAGER], strict=True)]
        yield Figure(name, "images/s", of_it, times_eager=times)
    times = [mine / base for mine, base in zip(speeds[_DISK], speeds[_PLAIN], strict=True)]
    reached = None if setting.is_tiny else median(times) >= _TIMES
    yield Figure("from the disk, times the plain loop", "times", times, target=f"{_TIMES}", reached=reached)
    needed = _operations(side)
    shares = [100 * speed * needed / rate for speed, rate in zip(speeds[_MEMORY], rates, strict=True)]
    yield Figure(
        "from memory: share of the rate of matrix multiplication in bfloat16",
        "%",
        shares,
        target=f"{100 * _SHARE:.0f} %",
        reached=None if setting.is_tiny else median(shares) >= 100 * _SHARE,
        note=f"{needed / 1e9:.1f} GFLOP an image, {median(rates) / 1e12:.3g} TFLOP/s by the largest matrices tried",
    )


def _trial(folder: Path, side: int, batch: int, count: int) -> dict[str, Any]:
    data = {"kind": "image_folder", "root": str(folder), "size": side, "batch_size": batch, "limit": count}
    return {
        "data": data | {"channels": 3, "mean_std": "imagenet"},
        "model": {"kind": "torchvision", "name": "resnet50", "weights": "none", "stem": "original"},
        "optimizer": {"kind": "sgd", "lr": 0.01, "momentum": 0.9},
        "precision": "bfloat16",
    }


def _resnet50() -> nn.Module:
    from torchvision.models import resnet50

    module: nn.Module = resnet50(num_classes=pictures.CLASSES)
    return module


def _operations(side: int) -> int:
    with torch.device("meta"):
        model = _resnet50()
    return arithmetic.operations(model, side)
