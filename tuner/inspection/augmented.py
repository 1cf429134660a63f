"""What a network sees in training: some training images, and several augmented versions of each."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.data.loading.source import batch_of
from tuner.error_text import escaped
from tuner.formatting import listed
from tuner.inspection.boxes import boxes_over, true_boxes
from tuner.inspection.pictures import data_uri, objects_over, over, picture
from tuner.interfaces import Batch
from tuner.process.generators import generators_kept
from tuner.train.trial_config import TrialConfig

_SIDE = 160
"""Longest side of an image on the sheet, in pixels."""


@dataclass(frozen=True)
class Tile:
    """An image on a contact sheet.

    Args:
        picture: Its pixels, as the ``src`` of an image in a page.
        caption: What is in it: the name of its class, or of several classes with their shares.
    """

    picture: str
    caption: str


@dataclass(frozen=True)
class ContactSheet:
    """Training images, each a row.

    Args:
        names: The name of each row's image; empty where it has none.
        originals: The image of each row, as validation sees it.
        versions: The augmented versions of each row; none if nothing is augmented.
        facts: What the sheet shows, in pairs of name and text.
    """

    names: list[str]
    originals: list[Tile]
    versions: list[list[Tile]]
    facts: list[tuple[str, str]]


def contact_sheet(trial: TrialConfig, rows: int = 12, versions: int = 6) -> ContactSheet:
    """Augment training images of a trial as its training does: each version comes from a batch of its own.

    Args:
        trial: The trial, with its dataset available.
        rows: The number of images.
        versions: The number of augmented versions of each.

    Raises:
        UserError: One of the images cannot be decoded.
    """
    data = trial.data
    images = data.first(rows)
    batch = batch_of(images.images, images.targets)
    augmented: list[Batch] = []
    if data.augment != type(data.augment)():
        with generators_kept():
            for number in range(versions):
                torch.manual_seed((trial.seed or 0) * 1_000_003 + number)
                augmented.append(data.augmentation(batch))
    return ContactSheet(
        names=[escaped(name) for name in data.names("train")[: len(images)]] or [""] * len(images),
        originals=[_tile(trial, batch, row) for row in range(len(images))],
        versions=[[_tile(trial, each, row) for each in augmented] for row in range(len(images))],
        facts=_facts(trial),
    )


def _tile(trial: TrialConfig, batch: Batch, row: int) -> Tile:
    caption = _caption(trial, batch.targets, row)
    if batch.mixed is not None and any(batch.mixed.targets[name] is not value for name, value in batch.targets.items()):
        other = _caption(trial, batch.mixed.targets, row)
        share = batch.mixed.share.item()
        caption = f"{share:.0%} {caption} + {1 - share:.0%} {other}"
    shown, boxes = batch.inputs[row], None
    for name in dict.fromkeys(head.target for head in trial.task.named_heads.values()):  # what is learnt of the image
        target, value = trial.data.targets[name], batch.targets[name][row]
        if target.kind == "mask":
            shown = over(shown, value)
        elif target.kind == "instances":
            shown = objects_over(shown, value)
        elif target.kind == "boxes":
            boxes = true_boxes(value, target)
    return Tile(data_uri(picture(shown, _SIDE) if boxes is None else boxes_over(shown, boxes, _SIDE)), caption)


def _caption(trial: TrialConfig, targets: dict[str, Tensor], row: int) -> str:
    """The name of an image's class, and its other targets, if there are any."""
    texts = []
    for name, target in trial.data.targets.items():
        value = targets[name][row]
        if target.kind == "values":
            texts.append(f"{name} {', '.join(f'{each:g}' for each in value.flatten().tolist())}")
        else:
            texts.append(listed(target.names(value)) or "none of the classes")
    return ", ".join(dict.fromkeys(texts))  # masks and boxes have the same classes


def _facts(trial: TrialConfig) -> list[tuple[str, str]]:
    data, shape = trial.data, trial.data.image
    changes = data.augment.model_dump(exclude_defaults=True)
    augment = ", ".join(f"{name} {value}" for name, value in changes.items())
    return [
        ("dataset", data.describe().name),
        ("images", f"{shape.channels} x {shape.height} x {shape.width}"),
        ("classes", ", ".join(next((target.classes for target in data.targets.values() if target.classes), ()))),
        ("augment", augment or "nothing: the network sees the images as they are"),
    ]
