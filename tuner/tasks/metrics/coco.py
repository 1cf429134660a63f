"""The base class of meters of average precision, as COCO defines it."""

from abc import abstractmethod
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from tuner.tasks.metrics.matched import Matched
from tuner.tasks.metrics.meter import ByClass, ErrorKind, Meter

if TYPE_CHECKING:
    from hotcoco import COCO, COCOeval

Array = np.ndarray[Any, np.dtype[Any]]
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
"""The areas of objects, as COCO's evaluation numbers them."""
_HALF, _THREE_QUARTERS = 0, 5
"""Intersections over union of 0.5 and of 0.75, of those from 0.5 to 0.95."""
_ERRORS = {
    "Cls": ("class", "in the right place, but of another class"),
    "Loc": ("place", "of the right class, but too far off: an IoU of 0.1 to 0.5"),
    "Both": ("class and place", "of another class, and too far off"),
    "Dupe": ("double", "a second detection of an object"),
    "Bkg": ("background", "a detection where no object is"),
    "Miss": ("missed", "an object of which nothing was found, not even with an error above"),
}
"""What hotcoco calls the kinds of errors, their names, and what they are."""


class COCOMeter(Meter):
    """COCO's average precision, computed by hotcoco.

    It is the mean over the classes that occur, and over intersections over union from 0.5 to 0.95; NaN if no object
    counts. Small, medium and large are objects of up to 32x32, up to 96x96, and more pixels of the image as the model
    sees it.
    """

    names: ClassVar[tuple[str, ...]] = ("map", "map50", "map75", "map_small", "map_medium", "map_large", "recall")
    compared: ClassVar[Literal["bbox", "segm"]]
    """What of objects and detections is compared, as COCO calls it."""

    def __init__(self) -> None:
        self._images = 0
        self._counts: Array | None = None

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
        return {
            "ap": precision.mean(axis=(0, 1)).tolist(),
            "ap50": precision[_HALF].mean(axis=0).tolist(),
            "support": self._support(precision.shape[-1]).tolist(),
        }

    def keep_samples(self) -> None:
        """They are kept in any case."""

    def weighted(self, counts: Array) -> Self:
        """As `Meter.weighted`. Detections are not matched with objects once more: each image has its own."""
        matched = self._matched
        other = copy(self)
        other._counts = counts
        other.__dict__["_matched"] = matched
        other.__dict__.pop("_accumulated", None)
        return other

    def errors(self) -> list[ErrorKind]:
        """What is wrong with the detections, at an intersection over union of 0.5 (Bolya et al., 2020)."""
        found = self._evaluated.tide_errors()
        return [
            ErrorKind(name, meaning, int(found["counts"][key]), "map50", float(found["delta_ap"][key]))
            for key, (name, meaning) in _ERRORS.items()
        ]

    @abstractmethod
    def _counted(self) -> Array:
        """The classes of the objects that count, int64 (objects,)."""

    @abstractmethod
    def _objects(self, images: list[dict[str, Any]]) -> "COCO":
        """The true objects."""

    @abstractmethod
    def _detections(self, objects: "COCO") -> "COCO":
        """The objects that were found."""

    def _changed(self, images: int) -> None:
        """Note that there are more images."""
        self._images += images
        for name in ("_evaluated", "_matched", "_accumulated"):
            self.__dict__.pop(name, None)

    def _support(self, classes: int) -> Array:
        """How many objects of each class count."""
        if self._counts is not None:
            return self._matched.support(self._counts)
        return np.bincount(self._counted(), minlength=classes)

    @cached_property
    def _matched(self) -> Matched:
        return Matched(self._evaluated)

    @cached_property
    def _evaluated(self) -> "COCOeval":
        from hotcoco import COCOeval

        objects = self._objects([{"id": number} for number in range(self._images)])
        evaluation = COCOeval(objects, self._detections(objects), self.compared)
        evaluation.evaluate()
        evaluation.accumulate()
        return evaluation

    def _of(self, name: str) -> Array:
        """What COCO's evaluation has accumulated, of up to 100 detections of an image; NaN where nothing counts."""
        return self._accumulated[name]

    @cached_property
    def _accumulated(self) -> dict[str, Array]:
        if self._counts is not None:
            return self._matched.accumulated(self._counts)
        accumulated = self._evaluated.eval
        assert accumulated is not None
        values = {name: np.asarray(accumulated[name])[..., -1] for name in ("precision", "recall")}
        return {name: np.where(each < 0, np.nan, each) for name, each in values.items()}


def categories(*classes: Array) -> list[dict[str, Any]]:
    """Categories from the class 0 to the highest of some."""
    count = 1 + int(max(each.max(initial=0) for each in classes))
    return [{"id": number, "name": str(number)} for number in range(count)]


def _mean(values: Array) -> float:
    """The mean of the values that are not NaN; NaN if none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
