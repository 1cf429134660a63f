"""Compares training on an image folder: the plain PyTorch script against tuner's `kind: image_folder`.

    python -m benchmarks.folder_speed FOLDER [--images 4000] [--epochs 3] [--turns 3] [--size 32]
                                             [--cache memory disk none] [--steps 20]

FOLDER has a folder of images for each class. Both train the same residual network on as many of its images, with flips
and shifts, SGD, one-cycle, batch 64, on 2 threads, and validate on others of its images after each epoch:

- plain: torchvision's ImageFolder, its transforms image by image, a DataLoader with 2 persistent workers;
- ours: `tuner.train.loop.fit`, images decoded once into memory, once onto the disk, or in each epoch by one worker
  (`--cache`), augmented in batches; float32, and auto, which is bfloat16 if the CPU supports it natively.

They run in turns in new processes. The first epoch of ours includes the decoding of all images, that of the plain
script the start of the workers. Ratios are taken within a turn. A second table (`loader_share.py`) has the share of a
ResNet-18's steps that wait for images, and the memory that reading takes beside the images' own bytes.
"""

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.epochs import Contest, Training
from benchmarks.loader_share import Share, measure
from benchmarks.tables import spread, table

_BATCH, _WORKERS, _SHIFT = 64, 2, 4
_HELD_OUT = 1000  # images
_LR, _MOMENTUM, _DECAY = 0.1, 0.9, 5e-4
_MODEL = {"kind": "resnet_small", "width": 16, "blocks": 1}


@dataclass(frozen=True)
class Job:
    """What is trained.

    Args:
        folder: The folder of images.
        images: Number of training images.
        epochs: Number of epochs.
        size: Side of the images in pixels.
    """

    folder: Path
    images: int
    epochs: int
    size: int


def _train_plain(job: Job, seed: int) -> Training:
    import torch
    from torch.nn import functional as F
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    from benchmarks.textbook import accuracy

    torch.manual_seed(seed)
    resize = transforms.Resize((job.size, job.size))
    tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.25,) * 3)])
    changes = [transforms.RandomHorizontalFlip(), transforms.RandomCrop(job.size, padding=_SHIFT)]
    model = _model(job).build_model()
    started = time.perf_counter()
    training = datasets.ImageFolder(str(job.folder), transforms.Compose([resize, *changes, tensor]))
    held_out = datasets.ImageFolder(str(job.folder), transforms.Compose([resize, tensor]))
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(0)).tolist()
    options: dict[str, Any] = {"num_workers": _WORKERS, "persistent_workers": True}
    train_loader = DataLoader(Subset(training, order[: job.images]), _BATCH, shuffle=True, **options)
    validation_loader = DataLoader(Subset(held_out, order[job.images : job.images + _HELD_OUT]), 250, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=_LR, momentum=_MOMENTUM, weight_decay=_DECAY)
    steps = job.epochs * len(train_loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=_LR, total_steps=steps)
    seconds, reached = [], 0.0
    for _ in range(job.epochs):
        model.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        reached = accuracy(model, validation_loader)
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    return Training(seconds, reached)


def _model(job: Job, cache: str = "memory") -> Any:
    from tuner.train.trial_config import TrialConfig

    return TrialConfig.model_validate(_trial(job, cache))


def _trial(job: Job, cache: str) -> dict[str, Any]:
    count = sum(1 for _ in job.folder.glob("*/*"))
    data = {
        "kind": "image_folder",
        "root": str(job.folder),
        "size": job.size,
        "batch_size": _BATCH,
        "mean_std": [[0.5] * 3, [0.25] * 3],
        "channels": 3,
        "limit": job.images,
        "cache": cache,
        "test": 1 - (job.images + _HELD_OUT) / count,  # what is left over
        "validation": _HELD_OUT / (job.images + _HELD_OUT),
        "augment": {"flip": True, "shift": _SHIFT},
    }
    optimizer = {"kind": "sgd", "lr": _LR, "momentum": _MOMENTUM, "weight_decay": _DECAY}
    trial = {"data": data, "model": _MODEL, "optimizer": optimizer, "schedule": {"kind": "one_cycle"}}
    return trial | {"epochs": job.epochs, "seed": 0}


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description="Training on an image folder: the plain script against ours.")
    parser.add_argument("folder", type=Path, help="a folder with a folder of images for each class")
    parser.add_argument("--images", type=int, default=4000, help="training images")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--cache", nargs="+", choices=["memory", "disk", "none"], default=["memory"])
    parser.add_argument("--steps", type=int, default=20, help="steps of ResNet-18 in an epoch; 0 for no second table")
    options = parser.parse_args()
    job = Job(options.folder.resolve(), options.images, options.epochs, options.size)
    neighbours = machine.Neighbours()
    found = Contest(_train_plain, _model, "val_accuracy").run(job, options.cache, options.turns, neighbours)
    print(f"{job.images:,} images of {job.size}x{job.size} pixels, {options.turns} turns; median (min..max).\n")
    print(found)
    if options.steps:
        print(f"\n{_shares(job, options.cache, options.steps, options.turns)}")
    print(f"\n{machine.facts(neighbours)}")


def _shares(job: Job, caches: list[str], steps: int, turns: int) -> str:
    """Measure what reading costs a training of ResNet-18, in a table."""
    spawn = multiprocessing.get_context("spawn")
    measured: dict[str, list[Share]] = {cache: [] for cache in caches}
    for _ in range(turns):
        for cache, shares in measured.items():
            with ProcessPoolExecutor(1, spawn) as pool:
                shares.append(pool.submit(measure, _trial(job, cache), cache, steps).result())
    rows = [
        [
            f"ResNet-18, {cache}",
            spread([share.step for share in shares], ".3f"),
            spread([100 * share.waiting for share in shares], ".1f"),
            f"{shares[0].images / 1e6:.1f}",
            spread([share.peak / 1e6 for share in shares], ".1f"),
            spread([share.workers / 1e6 for share in shares], ".0f"),
        ]
        for cache, shares in measured.items()
    ]
    return table(["", "step, s", "waiting, %", "images, MB", "memory for them, MB", "processes, MB"], rows)


if __name__ == "__main__":
    main()
