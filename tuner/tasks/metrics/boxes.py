"""The meter of boxes: average precision as COCO defines it."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from tuner.tasks.metrics.coco import Array, COCOMeter, categories

if TYPE_CHECKING:
    from hotcoco import COCO

_ROW = 7
"""Columns of a box here: the number of its image, left, top, width, height, score or whether it is ignored, class."""


class AveragePrecision(COCOMeter):
    """COCO's average precision of detections (N, K, 6) for boxes (N, M, 6).

    The meter keeps the boxes, 56 bytes each, and waits for the device at each batch.
    """

    compared = "bbox"

    def __init__(self) -> None:
        super().__init__()
        self._true: list[Array] = []
        self._found: list[Array] = []

    def update(self, output: Tensor, target: Tensor) -> None:
        numbers = self._images + torch.arange(len(output), dtype=torch.float64)
        self._found.append(_rows(output, numbers, is_box=output[..., 5] >= 0, last=(4, 5)))
        self._true.append(_rows(target, numbers, is_box=target[..., 4] >= 0, last=(5, 4)))
        self._changed(len(output))

    def merge(self, other: Self) -> None:
        for own, others in ((self._true, other._true), (self._found, other._found)):
            own += [rows + self._images * np.eye(1, _ROW) for rows in others]
        self._changed(other._images)

    def _counted(self) -> Array:
        true = np.concatenate(self._true)
        classes: Array = true[true[:, 5] == 0, 6].astype(np.int64)
        return classes

    def _objects(self, images: list[dict[str, Any]]) -> "COCO":
        from hotcoco import COCO

        true, found = np.concatenate(self._true), np.concatenate(self._found)
        classes = true[:, 6].astype(np.int64)
        ignored = true[:, 5].astype(np.int64)
        known = categories(true[:, 6], found[:, 6])
        return COCO.from_arrays(images, known, true[:, 0].astype(np.int64), classes, true[:, 1:5], iscrowd=ignored)

    def _detections(self, objects: "COCO") -> "COCO":
        return objects.load_res(np.concatenate(self._found))


def _rows(boxes: Tensor, images: Tensor, is_box: Tensor, last: tuple[int, int]) -> Array:
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
    rows: Array = torch.cat([number, start, end - start, values[..., list(last)]], dim=-1)[kept].numpy()
    return rows
