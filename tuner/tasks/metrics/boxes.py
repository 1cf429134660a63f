"""The meter of boxes: average precision as COCO defines it."""

from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from tuner.tasks.metrics.meter import ByClass, Meter

if TYPE_CHECKING:
    from hotcoco import COCOeval

_Array = np.ndarray[Any, np.dtype[Any]]
_ROW = 7
"""Columns of a box here: the number of its image, left, top, width, height, score or whether it is ignored, class."""
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
"""The areas of objects, as COCO's evaluation numbers them."""
_HALF, _THREE_QUARTERS = 0, 5
"""Intersections over union of 0.5 and of 0.75, of those from 0.5 to 0.95."""


class AveragePrecision(Meter):
    """COCO's average precision of detections (N, K, 6) for boxes (N, M, 6), computed by hotcoco.

    It is the mean over the classes that occur, and over intersections over union from 0.5 to 0.95; NaN if no box
    counts. Small, medium and large are objects of up to 32x32, up to 96x96, and more pixels of the image as the model
    sees it. The meter keeps the boxes, 56 bytes each, and waits for the device at each batch.
    """

    names = ("map", "map50", "map75", "map_small", "map_medium", "map_large", "recall")

    def __init__(self) -> None:
        self._true: list[_Array] = []
        self._found: list[_Array] = []
        self._images = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        numbers = self._images + torch.arange(len(output), dtype=torch.float64)
        self._found.append(_rows(output, numbers, is_box=output[..., 5] >= 0, last=(4, 5)))
        self._true.append(_rows(target, numbers, is_box=target[..., 4] >= 0, last=(5, 4)))
        self._images += len(output)
        self.__dict__.pop("_evaluated", None)

    def merge(self, other: Self) -> None:
        for own, others in ((self._true, other._true), (self._found, other._found)):
            own += [rows + self._images * np.eye(1, _ROW) for rows in others]
        self._images += other._images
        self.__dict__.pop("_evaluated", None)

    def compute(self) -> dict[str, float]:
        precision = self._of("precision")  # (thresholds, recalls, classes, areas)
        return {
            "map": _mean(precision[..., _ALL]),
            "map50": _mean(precision[_HALF, ..., _ALL]),
            "map75": _mean(precision[_THREE_QUARTERS, ..., _ALL]),
            "map_small": _mean(precision[..., _SMALL]),
            "map_medium": _mean(precision[..., _MEDIUM]),
            "map_large": _mean(precision[..., _LARGE]),
            "recall": _mean(self._of("recall")[..., _ALL]),
        }

    def by_class(self) -> ByClass:
        precision = self._of("precision")[..., _ALL]
        true = np.concatenate(self._true)
        counted = true[true[:, 5] == 0, 6].astype(np.int64)
        return {
            "ap": precision.mean(axis=(0, 1)).tolist(),
            "ap50": precision[_HALF].mean(axis=0).tolist(),
            "support": np.bincount(counted, minlength=precision.shape[-1]).tolist(),
        }

    def errors(self) -> dict[str, tuple[int, float]]:
        """What is wrong with the detections, at an intersection over union of 0.5 (Bolya et al., 2020).

        Returns:
            For each kind of error, how many there are, and by how much the mean average precision would rise without
            them.
        """
        found = self._evaluated.tide_errors()
        return {name: (int(found["counts"][key]), float(found["delta_ap"][key])) for name, key in _ERRORS.items()}

    @cached_property
    def _evaluated(self) -> "COCOeval":
        from hotcoco import COCO, COCOeval

        true, found = np.concatenate(self._true), np.concatenate(self._found)
        classes = 1 + int(max(true[:, 6].max(initial=0), found[:, 6].max(initial=0)))
        dataset = COCO.from_arrays(
            [{"id": number} for number in range(self._images)],
            [{"id": number, "name": str(number)} for number in range(classes)],
            true[:, 0].astype(np.int64),
            true[:, 6].astype(np.int64),
            true[:, 1:5],
            iscrowd=true[:, 5].astype(np.int64),
        )
        evaluation = COCOeval(dataset, dataset.load_res(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        return evaluation

    def _of(self, name: str) -> _Array:
        """What COCO's evaluation has accumulated, of up to 100 detections of an image; NaN where nothing counts."""
        accumulated = self._evaluated.eval
        assert accumulated is not None
        values: _Array = np.asarray(accumulated[name])[..., -1]
        return np.where(values < 0, np.nan, values)


def _mean(values: _Array) -> float:
    """The mean of the values that are not NaN; NaN if none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


_ERRORS = {
    "class": "Cls",
    "place": "Loc",
    "class and place": "Both",
    "double": "Dupe",
    "background": "Bkg",
    "missed": "Miss",
}
"""The kinds of errors, and what hotcoco calls them."""


def _rows(boxes: Tensor, images: Tensor, is_box: Tensor, last: tuple[int, int]) -> _Array:
    """Convert boxes (N, M, 6) to rows of COCO's, float64 (boxes, 7).

    Args:
        boxes: The boxes; the first four columns are their edges.
        images: The numbers of their images, float64 (N,) on the CPU.
        is_box: Whether a row is a box, and not padding, (N, M).
        last: The columns that are the last two of a row.
    """
    values, kept = boxes.detach().cpu().double(), is_box.cpu()
    number = images.view(-1, 1, 1).expand(-1, values.shape[1], 1)
    start, end = values[..., :2], values[..., 2:4]
    rows: _Array = torch.cat([number, start, end - start, values[..., list(last)]], dim=-1)[kept].numpy()
    return rows
