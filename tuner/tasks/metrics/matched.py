"""COCO's average precision from the matches of each image, for any number of times that an image counts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from hotcoco import COCOeval

Array = np.ndarray[Any, np.dtype[Any]]
_RECALLS = np.linspace(0, 1, 101)
"""The recalls at which COCO reads the precision."""


@dataclass(frozen=True)
class _Cell:
    """What was found of a class, and of objects of an area, in all images.

    Args:
        images: The image of each detection, the surest first, int64 (D,).
        right: Whether each finds an object, at each threshold: (T, D).
        wrong: Whether each finds none, and is no detection of an ignored object, (T, D).
        of: The image of each object that counts, int64 (O,).
    """

    images: Array
    right: Array
    wrong: Array
    of: Array


class Matched:
    """The matches of detections with objects, as COCO's evaluation found them: they are the same in any resample.

    Args:
        evaluation: COCO's evaluation, whose images are numbered from 0.
    """

    def __init__(self, evaluation: "COCOeval") -> None:
        parameters = evaluation.params
        self._classes, self._areas = list(parameters.cat_ids), [tuple(each) for each in parameters.area_rng]
        self._thresholds = len(parameters.iou_thrs)
        by_cell: dict[tuple[int, tuple[float, ...]], list[dict[str, Any]]] = {}
        for each in evaluation.eval_imgs:
            if each is not None:
                by_cell.setdefault((each["category_id"], tuple(each["aRng"])), []).append(each)
        self._cells = [
            [self._cell(by_cell.get((number, area), [])) for area in self._areas] for number in self._classes
        ]

    def _cell(self, images: list[dict[str, Any]]) -> _Cell:
        images = sorted(images, key=lambda each: each["image_id"])

        def joined(name: str) -> Array:
            parts = [np.asarray(each[name], dtype=bool).reshape(self._thresholds, -1) for each in images]
            return np.concatenate(parts, axis=1) if parts else np.zeros((self._thresholds, 0), dtype=bool)

        numbers = [each["image_id"] for each in images]
        scores = np.array([score for each in images for score in each["dtScores"]])
        order = np.argsort(-scores, kind="stable")
        found, ignored = joined("dtMatched")[:, order], joined("dtIgnore")[:, order]
        counted = [sum(map(bool, each["gtInDenominator"])) for each in images]
        of_detections = np.repeat(np.array(numbers, dtype=np.int64), [len(each["dtScores"]) for each in images])
        of_objects = np.repeat(np.array(numbers, dtype=np.int64), counted)
        return _Cell(of_detections[order], found & ~ignored, ~found & ~ignored, of_objects)

    def accumulated(self, counts: Array) -> dict[str, Array]:
        """What COCO's evaluation accumulates, if each image counted so many times; NaN where no object counts.

        Args:
            counts: How often each image counts, (images,).

        Returns:
            ``precision``, float64 (T, 101, classes, areas), and ``recall``, (T, classes, areas).
        """
        shape = (len(self._classes), len(self._areas))
        precision = np.full((self._thresholds, len(_RECALLS), *shape), np.nan)
        recall = np.full((self._thresholds, *shape), np.nan)
        for number, areas in enumerate(self._cells):
            for area, cell in enumerate(areas):
                if objects := counts[cell.of].sum():
                    curve, reached = _curve(cell, counts[cell.images], objects)
                    precision[..., number, area], recall[..., number, area] = curve, reached
        return {"precision": precision, "recall": recall}

    def support(self, counts: Array) -> Array:
        """How many objects of each class count, (classes,)."""
        return np.array([counts[areas[0].of].sum() for areas in self._cells])


def _curve(cell: _Cell, counts: Array, objects: int) -> tuple[Array, Array]:
    """The precision at each recall, (T, 101), and the recall that is reached, (T,)."""
    curve = np.zeros((len(cell.right), len(_RECALLS)))
    if not len(counts):
        return curve, curve[:, 0]
    right, wrong = (np.cumsum(each * counts, axis=1, dtype=np.float64) for each in (cell.right, cell.wrong))
    precision = right / (right + wrong + np.spacing(1))
    falling = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = right / objects
    for row, (reached, values) in enumerate(zip(recall, falling, strict=True)):
        places = np.searchsorted(reached, _RECALLS, side="left")
        curve[row, places < len(values)] = values[places[places < len(values)]]
    return curve, recall[:, -1]
