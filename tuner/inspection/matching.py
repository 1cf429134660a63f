"""Which detections find which objects of an image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.models.detection.boxes import overlaps
from tuner.tasks.predictions.boxes import SCORE

_OVERLAP = 0.5
"""Least intersection over union of a detection with the object that it finds."""


@dataclass(frozen=True)
class Matches:
    """The detections of an image and what they find.

    Args:
        found: The detections that count, the surest first: (D, 6) as `tuner.interfaces.Output` describes them.
        true: The objects, (T, 6) as `tuner.interfaces.TargetKind` describes them.
        right: Whether each detection finds an object, booleans (D,).
        wrong: Whether each detection is a mistake, (D,). One of an object that is ignored is neither.
        missed: Whether each object is found by no detection, (T,); false for those that are ignored.
    """

    found: Tensor
    true: Tensor
    right: Tensor
    wrong: Tensor
    missed: Tensor


def match(found: Tensor, true: Tensor, score: float = SCORE) -> Matches:
    """Match the detections of an image with its objects, as COCO does for average precision.

    Each detection, the surest first, finds the object of its class that it overlaps most, at an intersection over union
    of 0.5 and more, of those that none before it has found. One that finds none is no mistake if half of it or more
    lies in an ignored object of its class, which any number of detections may share.

    Args:
        found: What a model has found, (K, 6) with padding.
        true: What is there, (M, 6) with padding.
        score: Least score of a detection that counts.
    """
    found, true = found.detach().cpu().float(), true.detach().cpu().float()
    found = found[(found[:, 5] >= 0) & (found[:, 4] >= score)]
    found = found[found[:, 4].argsort(descending=True, stable=True)]
    true = true[true[:, 4] >= 0]
    ignored = true[:, 5] > 0
    is_class = found[:, None, 5] == true[None, :, 4]
    shared = overlaps(found[None, :, :4], true[None, :, :4])[0].masked_fill(~is_class | ignored, 0.0)
    free, right = list(range(len(true))), torch.zeros(len(found), dtype=torch.bool)
    for number, row in enumerate(shared.tolist()):  # numbers, as operations on so few are slow in PyTorch
        best = max(free, key=row.__getitem__, default=-1)
        if best >= 0 and row[best] >= _OVERLAP:
            free.remove(best)
            right[number] = True
    missed = torch.zeros(len(true), dtype=torch.bool)
    missed[free] = True
    excused = ((_inside(found, true) >= _OVERLAP) & is_class & ignored).any(dim=1)
    return Matches(found, true, right, ~right & ~excused, missed & ~ignored)


def _inside(found: Tensor, true: Tensor) -> Tensor:
    """The share of each detection (D, 6) that lies in each object (T, 6): (D, T)."""
    start = torch.maximum(found[:, None, :2], true[None, :, :2])
    end = torch.minimum(found[:, None, 2:4], true[None, :, 2:4])
    areas = (found[:, 2:4] - found[:, :2]).prod(dim=1).clamp(min=1e-9)
    return (end - start).clamp(min=0).prod(dim=2) / areas[:, None]
