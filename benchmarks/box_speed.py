"""Compares training of a detector: torchvision's reference script against tuner's `kind: coco`.

    python -m benchmarks.box_speed [--images 1000] [--epochs 3] [--turns 3] [--cache memory disk]

The images are scenes of digits of 64x64 pixels, as PNG files with a COCO file in a temporary folder. Both train
torchvision's SSDlite on as many of them, flipped at random, with AdamW, one-cycle, batch 16, on 2 threads, and measure
mAP50 on others after each epoch:

- plain: `CocoDetection`, the transforms v2 of torchvision's reference script for detection, a DataLoader with 2
  persistent workers that returns lists, and pycocotools;
- ours: `tuner.train.loop.fit`, decoded once into memory or onto the disk (`--cache`), augmented in batches; float32,
  and auto, which is bfloat16 if the CPU supports it natively.

They run in turns in new processes. The first epoch of ours includes the decoding of all images, that of the plain
script the start of the workers. Ratios are taken within a turn.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.epochs import Contest, Training

_BATCH, _WORKERS, _SIDE, _CLASSES = 16, 2, 64, 10
_HELD_OUT = 200  # images
_LR, _DECAY = 1e-3, 0.01
_MODEL = "ssdlite320_mobilenet_v3_large"
_FILE = "_annotations.coco.json"


@dataclass(frozen=True)
class Job:
    """What is trained: the folder of images and boxes, the number of training images, the number of epochs."""

    folder: Path
    images: int
    epochs: int


def write_scenes(folder: Path, count: int) -> None:
    """Write scenes and their boxes, for training and for validation."""
    from torchvision.io import write_png

    from tuner.data import MNISTScenes

    scenes = MNISTScenes(scenes=count, validation=_HELD_OUT, test=10, offline="digits").prepare()[0]
    sets = dict(zip(("train", "valid", "test"), (*scenes.load(), scenes.load_test()), strict=True))
    for split, images in sets.items():
        (folder / split).mkdir(parents=True)
        annotations: list[dict[str, Any]] = []
        for number, (each, boxes) in enumerate(zip(images.images, images.targets["boxes"].tolist(), strict=True)):
            write_png(each, str(folder / split / f"{number:06}.png"))
            for left, top, right, bottom, category, ignored in boxes:
                if category >= 0:
                    box = [left, top, right - left, bottom - top]
                    annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": int(category) + 1}
                    annotations.append(annotation | {"bbox": box, "area": box[2] * box[3], "iscrowd": int(ignored)})
        known = [
            {"id": number, "file_name": f"{number:06}.png", "height": _SIDE, "width": _SIDE}
            for number in range(len(images))
        ]
        categories = [{"id": number + 1, "name": str(number)} for number in range(_CLASSES)]
        whole = {"images": known, "annotations": annotations, "categories": categories}
        (folder / split / _FILE).write_text(json.dumps(whole))


def _set(folder: Path, transforms: Any) -> Any:
    """The images and boxes of a folder, as the reference script reads them."""
    from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2

    with contextlib.redirect_stdout(io.StringIO()):
        found = CocoDetection(str(folder), str(folder / _FILE), transforms=transforms)
    return wrap_dataset_for_transforms_v2(found, target_keys=("image_id", "boxes", "labels"))


def _listed(batch: Any) -> tuple[list[Any], list[Any]]:
    """A batch as lists. Images without boxes have no keys for them."""
    import torch

    images, targets = zip(*batch, strict=True)
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return list(images), [empty | target for target in targets]


def _train_plain(job: Job, seed: int) -> Training:
    import torch
    from torch.utils.data import DataLoader
    from torchvision import models, tv_tensors
    from torchvision.transforms import v2

    torch.manual_seed(seed)
    as_tensors = [v2.ToImage(), v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)]
    model: Any = models.get_model(_MODEL, weights=None, weights_backbone=None, num_classes=_CLASSES + 1)
    model.transform.min_size, model.transform.max_size = (_SIDE,), _SIDE
    model.transform.fixed_size = (_SIDE, _SIDE)
    started = time.perf_counter()
    augmented = v2.Compose([v2.RandomHorizontalFlip(), *as_tensors])
    training = _set(job.folder / "train", augmented)
    held_out = _set(job.folder / "valid", v2.Compose(as_tensors))
    options: dict[str, Any] = {"num_workers": _WORKERS, "persistent_workers": True, "collate_fn": _listed}
    train_loader: Any = DataLoader(training, _BATCH, shuffle=True, **options)
    validation_loader: Any = DataLoader(held_out, _BATCH, **options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LR, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, total_steps=job.epochs * len(train_loader))
    seconds, reached = [], 0.0
    for _ in range(job.epochs):
        model.train()
        for images, targets in train_loader:
            loss = sum(model(images, targets).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        reached = _map50(model, validation_loader, job.folder / "valid" / _FILE)
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    return Training(seconds, reached)


def _map50(model: Any, loader: Any, file: Path) -> float:
    """The mean average precision at an overlap of a half, by pycocotools as the reference script has it."""
    import torch
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    results = []
    model.eval()
    with torch.inference_mode():
        for images, targets in loader:
            for found, target in zip(model(images), targets, strict=True):
                columns = (found[name].tolist() for name in ("boxes", "labels", "scores"))
                for (left, top, right, bottom), label, score in zip(*columns, strict=True):
                    box = [left, top, right - left, bottom - top]
                    one = {"image_id": target["image_id"], "category_id": label, "bbox": box, "score": score}
                    results.append(one)
    if not results:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[1])


def _config(job: Job, cache: str = "memory") -> Any:
    from tuner.train.trial_config import TrialConfig

    data = {"kind": "coco", "root": str(job.folder), "size": _SIDE, "cache": cache, "batch_size": _BATCH}
    return TrialConfig.model_validate(
        {
            "task": {"kind": "detection"},
            "data": data | {"augment": {"flip": True}},
            "model": {"kind": "torchvision", "name": _MODEL},
            "optimizer": {"kind": "adamw", "lr": _LR, "weight_decay": _DECAY},
            "schedule": {"kind": "one_cycle"},
            "epochs": job.epochs,
            "seed": 0,
        }
    )


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description="Training of a detector: torchvision's script against ours.")
    parser.add_argument("--images", type=int, default=1000, help="training images")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--cache", nargs="+", choices=["memory", "disk", "none"], default=["memory", "disk"])
    options = parser.parse_args()
    neighbours = machine.Neighbours()
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder), options.images, options.epochs)
        write_scenes(job.folder, job.images)
        found = Contest(_train_plain, _config, "val_map50").run(job, options.cache, options.turns, neighbours)
    print(f"{job.images:,} images of {_SIDE}x{_SIDE} pixels, {options.turns} turns; median (min..max).\n")
    print(found)
    print(f"\n{machine.facts(neighbours)}")


if __name__ == "__main__":
    main()
