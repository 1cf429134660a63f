"""The meter of boxes as Pascal VOC measures them."""

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from tuner.tasks.metrics.meter import Meter

_LEAST = 0.5
"""Intersection over union from which on a detection is that of an object."""
_IGNORED = 2

_Array = np.ndarray[Any, np.dtype[Any]]


class VOCAveragePrecision(Meter):
    """Pascal VOC's mean average precision of detections (N, K, 6), the surest first, for boxes (N, M, 6).

    It is that of the challenges of 2010 and later: the mean over the classes that occur of the area under the curve of
    precision and recall, which is made to fall. A detection is right if it overlaps the object of its class that it
    overlaps most by a half or more, and is the surest one that does; difficult objects are left out. NaN if there are
    no objects. The meter keeps 24 bytes of each detection, and waits for the device at each batch.
    """

    names = ("map_voc",)

    def __init__(self) -> None:
        self._found: list[_Array] = []
        self._classes: list[_Array] = []

    def update(self, output: Tensor, target: Tensor) -> None:
        found, true = output.detach().cpu().double(), target.detach().cpu().double()
        outcome = _outcomes(found, true)
        kept = found[..., 5] >= 0
        columns = torch.stack([found[..., 4], found[..., 5], outcome.double()], dim=-1)
        self._found.append(columns[kept].numpy())
        self._classes.append(true[..., 4][(true[..., 4] >= 0) & (true[..., 5] == 0)].numpy())

    def merge(self, other: Self) -> None:
        self._found += other._found
        self._classes += other._classes

    def compute(self) -> dict[str, float]:
        classes = np.concatenate(self._classes).astype(np.int64)
        found = np.concatenate(self._found)
        found = found[np.argsort(-found[:, 0], kind="stable")]
        precisions = [
            _area(found[(found[:, 1] == number) & (found[:, 2] != _IGNORED), 2], count)
            for number, count in zip(*np.unique(classes, return_counts=True), strict=True)
        ]
        return {"map_voc": float(np.mean(precisions)) if precisions else float("nan")}


def _outcomes(found: Tensor, true: Tensor) -> Tensor:
    """What each detection (N, K, 6) is for boxes (N, M, 6): 1 if it is right, 0 if it is wrong, 2 if it is left out."""
    start = torch.maximum(found[:, :, None, :2], true[:, None, :, :2])
    end = torch.minimum(found[:, :, None, 2:4], true[:, None, :, 2:4])
    shared = (end - start).clamp(min=0).prod(dim=-1)
    areas = [(boxes[..., 2:4] - boxes[..., :2]).prod(dim=-1) for boxes in (found, true)]
    overlap = shared / (areas[0].unsqueeze(2) + areas[1].unsqueeze(1) - shared).clamp(min=1e-12)
    best = torch.where(found[:, :, None, 5] == true[:, None, :, 4], overlap, -1.0).max(dim=2)  # (N, K)
    hits = best.values >= _LEAST
    # Of the detections that overlap one object, the surest is right, and the others are doubles.
    same = (best.indices.unsqueeze(2) == best.indices.unsqueeze(1)) & hits.unsqueeze(1)
    is_double = torch.tril(same, diagonal=-1).any(dim=2)
    is_difficult = true[..., 5].gather(1, best.indices) > 0
    return torch.where(hits & is_difficult, _IGNORED, (hits & ~is_double).long())


def _area(right: _Array, count: int) -> float:
    """The area under the curve of a class, by whether its detections are right, the surest first."""
    hits = np.cumsum(right)
    recall = np.concatenate([[0], hits / count])
    precision = hits / np.arange(1, len(right) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * falling).sum())
