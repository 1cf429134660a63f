"""The trials that may fit data and a machine: sizes of images, models, and the settings with which these train."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tuner.interfaces import TargetKind
from tuner.proposal.layout import Layout
from tuner.proposal.machine import Machine

_SMALL = 64
"""Shorter side of the images, in pixels, up to which they are kept at their size and a network for small ones fits."""
_TASKS: dict[TargetKind, str] = {
    "multilabel": "multilabel",
    "mask": "semantic_segmentation",
    "boxes": "detection",
}
"""Tasks of targets that are not classified, which is the default."""


@dataclass(frozen=True)
class Candidate:
    """A trial that may fit.

    Args:
        size: Side to which the images are resized, in pixels.
        model: The section ``model``.
        why: Why this model, as a phrase.
        epochs: The fewest epochs that are worth training it, how many are enough, and the most.
        is_pretrained: Whether it begins with pretrained weights.
    """

    size: int
    model: dict[str, Any]
    why: str
    epochs: tuple[int, int, int]
    is_pretrained: bool = False


def candidates(layout: Layout, machine: Machine, has_weights: Callable[[str], bool]) -> Iterator[Candidate]:
    """The trials that may fit, the best and slowest first.

    Args:
        layout: The data.
        machine: This machine.
        has_weights: Returns whether pretrained weights of a model of torchvision can be had.
    """
    if layout.kind == "mask":
        yield from _per_pixel(layout, machine)
        return
    if layout.kind == "boxes":
        yield from _detectors(layout, machine)
        return
    if layout.side <= _SMALL:
        size = max(8, layout.side // 4 * 4)
        why = f"the images are small ({layout.side} pixels): a residual network whose first layers keep their size"
        yield from _from_new_weights(size, 2 if size < 16 else 3, machine, why)
        return
    if has_weights("resnet18"):
        yield from _pretrained(machine)
    else:
        why = "pretrained weights cannot be had here: a residual network from new weights, on reduced images"
        yield from _from_new_weights(128 if machine.gpus else 64, 4, machine, why)


def _from_new_weights(size: int, stages: int, machine: Machine, why: str) -> Iterator[Candidate]:
    widths = [(64, 2), (32, 2), (16, 2)] if machine.gpus else [(64, 2), (32, 2), (32, 1), (16, 2), (16, 1), (8, 1)]
    for width, blocks in widths:
        model = {"kind": "resnet_small", "width": width, "blocks": blocks, "stages": stages}
        yield Candidate(size, model, f"{why}; this width and depth fit the time", (40, 60, 100))


def _pretrained(machine: Machine) -> Iterator[Candidate]:
    why = "fine-tuning pretrained weights needs fewest images and epochs"
    shapes = [("resnet50", 224), ("resnet18", 160)] if machine.gpus else [("resnet18", 160), ("resnet18", 96)]
    for name, size in shapes:
        model = {"kind": "torchvision", "name": name, "weights": "DEFAULT"}
        yield Candidate(size, model, why, (4, 8, 15), is_pretrained=True)
    name, size = shapes[-1]
    frozen = {"kind": "torchvision", "name": name, "weights": "DEFAULT", "freeze": "backbone"}
    why += "; the backbone is frozen, because the time is short"
    yield Candidate(size, frozen, why, (4, 8, 15), is_pretrained=True)


def _per_pixel(layout: Layout, machine: Machine) -> Iterator[Candidate]:
    largest = 256 if machine.gpus else 128
    size = max(16, min(layout.side, largest) // 16 * 16)
    why = "each pixel gets a class: a U-Net, whose width fits the time"
    for width, side in ((32, size), (16, size), (16, max(16, size // 2)), (8, max(16, size // 2))):
        yield Candidate(side, {"kind": "unet", "width": width, "levels": 4}, why, (10, 25, 60))


def _detectors(layout: Layout, machine: Machine) -> Iterator[Candidate]:
    largest = 640 if machine.gpus else 320
    size = max(32, min(layout.side, largest) // 32 * 32)
    why = "objects have boxes: a compact detector, whose width and images fit the time"
    for width, side in ((32, size), (16, size), (16, max(32, size // 64 * 32)), (8, max(32, size // 64 * 32))):
        yield Candidate(side, {"kind": "yolo", "width": width}, why, (10, 40, 100))


def trial_of(layout: Layout, candidate: Candidate, epochs: int) -> dict[str, Any]:
    """The section ``trial`` for a candidate."""
    images = layout.training_images
    batch = 32 if images < 1000 else 64 if images < 20_000 else 128
    data = layout.fields | {"size": candidate.size, "batch_size": batch}
    if candidate.size <= _SMALL:
        data |= {"augment": {"shift": candidate.size // 8}}
    if layout.kind == "mask":
        data["batch_size"] = 8 if candidate.size > _SMALL else 32
        optimizer = {"kind": "adamw", "lr": 0.005, "weight_decay": 0.01}
        schedule: dict[str, Any] = {"kind": "one_cycle"}
    elif layout.kind == "boxes":
        data["batch_size"] = 16
        optimizer = {"kind": "adamw", "lr": 0.005, "weight_decay": 0.05}
        schedule = {"kind": "cosine", "warmup": 1}
    elif candidate.is_pretrained:
        optimizer = {"kind": "adamw", "lr": 0.0005, "weight_decay": 0.05}
        schedule = {"kind": "cosine", "warmup": 0.5}
    else:
        optimizer = {"kind": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0005}
        schedule = {"kind": "one_cycle"}
    return ({"task": {"kind": _TASKS[layout.kind]}} if layout.kind in _TASKS else {}) | {
        "data": data,
        "model": candidate.model,
        "optimizer": optimizer,
        "schedule": schedule,
        "epochs": epochs,
    }
