"""The meter of boxes as Pascal VOC measures them."""

from copy import copy
from functools import cached_property
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
    no objects. The meter keeps 32 bytes of each detection, and waits for the device at each batch.
    """

    names = ("map_voc",)

    def __init__(self) -> None:
        self._found: list[_Array] = []
        self._true: list[_Array] = []
        self._images = 0
        self._counts: _Array | None = None

    def update(self, output: Tensor, target: Tensor) -> None:
        found, true = output.detach().cpu().double(), target.detach().cpu().double()
        outcome = _outcomes(found, true)
        kept = found[..., 5] >= 0
        images = self._images + torch.arange(len(found), dtype=torch.float64).unsqueeze(1)
        columns = [images.expand_as(outcome), found[..., 5], outcome.double(), found[..., 4]]
        self._found.append(torch.stack(columns, dim=-1)[kept].numpy())
        counted = (true[..., 4] >= 0) & (true[..., 5] == 0)
        self._true.append(torch.stack([images.expand_as(true[..., 4]), true[..., 4]], dim=-1)[counted].numpy())
        self._changed(len(found))

    def merge(self, other: Self) -> None:
        for own, others in ((self._true, other._true), (self._found, other._found)):
            own += [rows + self._images * np.eye(1, rows.shape[1]) for rows in others]
        self._changed(other._images)

    def keep_samples(self) -> None:
        """They are kept in any case."""

    def weighted(self, counts: _Array) -> Self:
        by_class = self._by_class
        other = copy(self)
        other._counts = counts
        other.__dict__["_by_class"] = by_class
        return other

    def compute(self) -> dict[str, float]:
        counts = np.ones(self._images, dtype=np.int64) if self._counts is None else self._counts
        precisions = [
            _area(right, counts[images], total) for images, right, of in self._by_class if (total := counts[of].sum())
        ]
        return {"map_voc": float(np.mean(precisions)) if precisions else float("nan")}

    def _changed(self, images: int) -> None:
        """Note that there are more images."""
        self._images += images
        self.__dict__.pop("_by_class", None)

    @cached_property
    def _by_class(self) -> list[tuple[_Array, _Array, _Array]]:
        """Of each class that occurs the images of the detections, the surest first, and whether these are right; and
        the images of its objects.
        """
        true, found = np.concatenate(self._true).astype(np.int64), np.concatenate(self._found)
        found = found[np.argsort(-found[:, 3], kind="stable"), :3].astype(np.int64)
        found = found[found[:, 2] != _IGNORED]
        by_class = []
        for number in np.unique(true[:, 1]):
            own = found[found[:, 1] == number]
            by_class.append((own[:, 0], own[:, 2], true[true[:, 1] == number, 0]))
        return by_class


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


def _area(right: _Array, counts: _Array, total: int) -> float:
    """The area under the curve of a class, by whether its detections are right, the surest first.

    Args:
        right: Whether each one is right, 1 or 0.
        counts: How often each one counts.
        total: How often its objects count.
    """
    hits = np.cumsum(right * counts)
    recall = np.concatenate([[0], hits / total])
    precision = hits / np.cumsum(counts).clip(min=1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * falling).sum())
