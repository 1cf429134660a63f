"""Compares training of a detector: torchvision's reference script against tuner's `kind: coco`.

    python -m benchmarks.box_speed [--of easy | instances] [--images 1000] [--epochs 3] [--turns 3] [--cache memory]

The images are scenes of digits of 64x64 pixels, as PNG files with a COCO file in a temporary folder. Both train
torchvision's SSDlite on as many of them, flipped at random, with AdamW, one-cycle, batch 16, on 2 threads, and measure
mAP50 on others after each epoch. With `--of easy` scenes have none to two large digits and batches 8 images, so that a
training of minutes finds them, and what both reach can be compared. With `--of instances` the objects have masks, too,
and both train Mask R-CNN on 32 regions of an image, with anchors of 8 to 128 pixels:

- plain: `CocoDetection`, the transforms v2 of torchvision's reference script for detection, a DataLoader with 2
  persistent workers that returns lists, and pycocotools;
- ours: `tuner.train.loop.fit`, decoded once into memory or onto the disk (`--cache`), augmented in batches; float32,
  and auto, which is bfloat16 if the CPU supports it natively.

They run in turns in new processes. The first epoch of ours includes the decoding of all images, that of the plain
script the start of the workers. Ratios are taken within a turn.
"""

import contextlib
import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.epochs import Contest, Job, Training, compete

_WORKERS, _SIDE, _CLASSES = 2, 64, 10
_LR, _DECAY = 1e-3, 0.01
_FILE = "_annotations.coco.json"


@dataclass(frozen=True)
class _Kind:
    """What is learnt of objects.

    Args:
        task: The task of ours.
        target: The target of the scenes that the files are of.
        keys: What the plain script reads of the annotations, beside the number of the image.
        model: Name of the model in torchvision.
        fields: Fields of our model.
        compared: What pycocotools compares.
        held_out: Number of validation images: few with masks, as those of a hundred guesses at each are computed.
        batch: Images of a batch.
        scenes: Fields of the scenes.
    """

    task: str
    target: str
    keys: tuple[str, ...]
    model: str
    fields: dict[str, Any]
    compared: str
    held_out: int
    batch: int = 16
    scenes: dict[str, Any] = field(default_factory=dict)


_BOXES = _Kind(
    task="detection",
    target="boxes",
    keys=("boxes", "labels"),
    model="ssdlite320_mobilenet_v3_large",
    fields={},
    compared="bbox",
    held_out=200,
)
_EASY = replace(_BOXES, batch=8, scenes={"digits": 2, "smallest": 28, "clutter": 0})
_INSTANCES = _Kind(
    task="instance_segmentation",
    target="instances",
    keys=("boxes", "labels", "masks"),
    model="maskrcnn_resnet50_fpn",
    fields={"regions": 32, "anchors": [8, 16, 32, 64, 128]},
    compared="segm",
    held_out=10,
)


def write_scenes(kind: _Kind, folder: Path, count: int) -> None:
    """Write scenes and their objects, for training and for validation."""
    from torchvision.io import write_png

    from tuner.data import MNISTScenes

    fields = {"scenes": count, "validation": kind.held_out, "test": 10, "offline": "digits"} | kind.scenes
    scenes = MNISTScenes.model_validate(fields).prepare()[0]
    sets = dict(zip(("train", "valid", "test"), (*scenes.load(), scenes.load_test()), strict=True))
    for split, images in sets.items():
        (folder / split).mkdir(parents=True)
        annotations: list[dict[str, Any]] = []
        for number, (each, target) in enumerate(zip(images.images, images.targets[kind.target], strict=True)):
            write_png(each, str(folder / split / f"{number:06}.png"))
            for one in _masks(target) if kind.compared == "segm" else _boxes(target):
                annotations.append({"id": len(annotations) + 1, "image_id": number} | one)
        known = [
            {"id": number, "file_name": f"{number:06}.png", "height": _SIDE, "width": _SIDE}
            for number in range(len(images))
        ]
        categories = [{"id": number + 1, "name": str(number)} for number in range(_CLASSES)]
        whole = {"images": known, "annotations": annotations, "categories": categories}
        (folder / split / _FILE).write_text(json.dumps(whole))


def _boxes(target: Any) -> Iterator[dict[str, Any]]:
    """The annotations of the boxes of an image (M, 6)."""
    for left, top, right, bottom, category, ignored in target.tolist():
        if category >= 0:
            box = [left, top, right - left, bottom - top]
            yield {"category_id": int(category) + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": int(ignored)}


def _masks(target: Any) -> Iterator[dict[str, Any]]:
    """The annotations of the objects of an image, whose pixels they number, (H, W)."""
    from pycocotools import mask as rle

    from tuner.interfaces.instances import classes_of

    for code in target.unique():
        if code > 0:
            encoded = _encoded((target == code).numpy())
            box, area = rle.toBbox(encoded).tolist(), float(rle.area(encoded))
            category = int(classes_of(code)) + 1
            yield {"category_id": category, "segmentation": encoded, "bbox": box, "area": area, "iscrowd": 0}


def _encoded(mask: Any) -> dict[str, Any]:
    """A mask (H, W) as COCO's files have it."""
    import numpy as np
    from pycocotools import mask as rle

    encoded: dict[str, Any] = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def _set(kind: _Kind, folder: Path, transforms: Any) -> Any:
    """The images and objects of a folder, as the reference script reads them."""
    from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2

    with contextlib.redirect_stdout(io.StringIO()):
        found = CocoDetection(str(folder), str(folder / _FILE), transforms=transforms)
    return wrap_dataset_for_transforms_v2(found, target_keys=("image_id", *kind.keys))


def _listed(batch: Any) -> tuple[list[Any], list[Any]]:
    """A batch as lists. Images without objects have no keys for them."""
    import torch

    images, targets = zip(*batch, strict=True)
    empty = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, _SIDE, _SIDE, dtype=torch.uint8),
    }
    return list(images), [empty | target for target in targets]


def _train_plain(kind: _Kind, job: Job, seed: int) -> Training:
    import torch
    from torch.utils.data import DataLoader
    from torchvision import models, tv_tensors
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.transforms import v2

    torch.manual_seed(seed)
    as_tensors = [v2.ToImage(), v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)]
    model: Any = models.get_model(kind.model, weights=None, weights_backbone=None, num_classes=_CLASSES + 1)
    model.transform.min_size, model.transform.max_size = (_SIDE,), _SIDE
    model.transform.fixed_size = (_SIDE, _SIDE)
    if kind.fields:
        model.roi_heads.fg_bg_sampler.batch_size_per_image = kind.fields["regions"]
        sizes = tuple((size,) for size in kind.fields["anchors"])
        model.rpn.anchor_generator = AnchorGenerator(sizes, model.rpn.anchor_generator.aspect_ratios)
    started = time.perf_counter()
    augmented = v2.Compose([v2.RandomHorizontalFlip(), *as_tensors])
    training = _set(kind, job.folder / "train", augmented)
    held_out = _set(kind, job.folder / "valid", v2.Compose(as_tensors))
    options: dict[str, Any] = {"num_workers": _WORKERS, "persistent_workers": True, "collate_fn": _listed}
    train_loader: Any = DataLoader(training, kind.batch, shuffle=True, **options)
    validation_loader: Any = DataLoader(held_out, kind.batch, **options)
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
        reached = _map50(kind, model, validation_loader, job.folder / "valid" / _FILE)
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    return Training(seconds, reached)


def _map50(kind: _Kind, model: Any, loader: Any, file: Path) -> float:
    """The mean average precision at an overlap of a half, by pycocotools as the reference script has it."""
    import torch
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    results = []
    model.eval()
    with torch.inference_mode():
        for images, targets in loader:
            for found, target in zip(model(images), targets, strict=True):
                for row, (label, score) in enumerate(
                    zip(found["labels"].tolist(), found["scores"].tolist(), strict=True)
                ):
                    one = {"image_id": target["image_id"], "category_id": label, "score": score}
                    results.append(one | _shape(kind, found, row))
    if not results:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        evaluation = COCOeval(truth, truth.loadRes(results), kind.compared)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[1])


def _shape(kind: _Kind, found: Any, row: int) -> dict[str, Any]:
    """The mask of an object that was found, or else its box, as pycocotools takes it."""
    if kind.compared == "segm":
        return {"segmentation": _encoded((found["masks"][row, 0] > 0.5).numpy())}
    left, top, right, bottom = found["boxes"][row].tolist()
    return {"bbox": [left, top, right - left, bottom - top]}


def _config(kind: _Kind, job: Job, cache: str = "memory") -> Any:
    from tuner.train.trial_config import TrialConfig

    data = {"kind": "coco", "root": str(job.folder), "size": _SIDE, "cache": cache, "batch_size": kind.batch}
    data |= {"instances": True} if kind.compared == "segm" else {}
    return TrialConfig.model_validate(
        {
            "task": {"kind": kind.task},
            "data": data | {"augment": {"flip": True}},
            "model": {"kind": "torchvision", "name": kind.model} | kind.fields,
            "optimizer": {"kind": "adamw", "lr": _LR, "weight_decay": _DECAY},
            "schedule": {"kind": "one_cycle"},
            "epochs": job.epochs,
            "seed": 0,
        }
    )


def main() -> None:
    """Compare and print."""
    contests = {
        name: (
            partial(write_scenes, kind),
            Contest(partial(_train_plain, kind), partial(_config, kind), "val_map50"),
        )
        for name, kind in {"boxes": _BOXES, "easy": _EASY, "instances": _INSTANCES}.items()
    }
    what = "Training of a detector: torchvision's script against ours."
    compete(what, contests, side=_SIDE, images=1000, epochs=3)


if __name__ == "__main__":
    main()
