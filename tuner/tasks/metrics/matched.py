"""COCO's average precision from the matches of each image, for any number of times that an image counts."""

from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.process.collection import without_collection

if TYPE_CHECKING:
    from hotcoco import COCOeval

Array = np.ndarray[Any, np.dtype[Any]]
_RECALLS = np.linspace(0, 1, 101)
"""The recalls at which COCO reads the precision."""


class Matched:
    """The matches of detections with objects, as COCO's evaluation found them: they are the same in any resample.

    All classes, areas and thresholds lie behind each other in arrays, in this order; what belongs to one of each is a
    *curve* here. Precision is computed at *hits* alone, the detections that find an object: between two of them it
    falls, and COCO reads the largest one behind a place.

    Args:
        evaluation: COCO's evaluation, whose images are numbered from 0.
    """

    def __init__(self, evaluation: "COCOeval") -> None:
        parameters = evaluation.params
        classes, areas = list(parameters.cat_ids), [tuple(each) for each in parameters.area_rng]
        self._shape = (len(classes), len(areas), len(parameters.iou_thrs))
        by_cell: dict[tuple[int, tuple[float, ...]], list[dict[str, Any]]] = {}
        found = _Flat()
        with without_collection():  # hotcoco makes a dict of lists for each image, class and area
            for each in evaluation.eval_imgs:
                if each is not None:
                    by_cell.setdefault((each["category_id"], tuple(each["aRng"])), []).append(each)
            for number in classes:
                for area in areas:
                    found.add(by_cell.pop((number, area), []), len(parameters.iou_thrs))
        self._objects, self._object_ends = _joined(found.objects)
        self._detections, list_ends = _joined(found.lists)
        starts = np.concatenate([[0], list_ends])[found.list_of]
        hits, self._hit_ends = _joined(found.hits)
        self._curve_of = np.repeat(np.arange(len(found.hits)), np.diff(self._hit_ends, prepend=0))
        self._hit_starts = np.concatenate([[0], self._hit_ends[:-1]]).astype(np.int64)
        self._starts = starts[self._curve_of]
        self._places = self._starts + hits
        """Where the hits are among the detections, and where the detections of their curves begin."""
        self._hits = self._detections[self._places]

    def accumulated(self, counts: Array) -> dict[str, Array]:
        """What COCO's evaluation accumulates, if each image counted so many times; NaN where no object counts.

        Args:
            counts: How often each image counts, (images,).

        Returns:
            ``precision``, float64 (T, 101, classes, areas), and ``recall``, (T, classes, areas).
        """
        objects = np.repeat(self._objects_counted(counts), self._shape[2])
        detections, hits = (_from_zero(counts[each]) for each in (self._detections, self._hits))
        right = hits[1:] - hits[self._hit_starts][self._curve_of]
        precision = right / (detections[self._places + 1] - detections[self._starts] + np.spacing(1))
        for start, end in zip(self._hit_starts.tolist(), self._hit_ends.tolist(), strict=True):
            backwards = precision[start:end][::-1]
            np.maximum.accumulate(backwards, out=backwards)
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = (hits[self._hit_ends] - hits[self._hit_starts]) / objects
        curves = self._read(precision, right, objects)
        curves[objects == 0] = np.nan
        return {
            "precision": curves.reshape(*self._shape, -1).transpose(2, 3, 0, 1),
            "recall": recall.reshape(self._shape).transpose(2, 0, 1),
        }

    def _read(self, precision: Array, right: Array, objects: Array) -> Array:
        """Read the precision at each recall, (curves, 101): behind the first hit that reaches it, 0 if none does."""
        needed = np.ceil(_RECALLS * objects[:, None]).astype(np.int64)
        divisor = np.maximum(objects, 1)[:, None]
        needed -= (needed - 1) / divisor >= _RECALLS  # the product may be rounded up
        needed += needed / divisor < _RECALLS
        many = max(int(objects.max(initial=0)), int(right.max(initial=0))) + 2
        wanted = needed + many * np.arange(len(objects))[:, None]
        at = np.searchsorted(right + many * self._curve_of, wanted.ravel()).reshape(wanted.shape)
        return np.where(at < self._hit_ends[:, None], np.append(precision, 0)[at], 0)

    def support(self, counts: Array) -> Array:
        """How many objects of each class count, (classes,)."""
        return self._objects_counted(counts).reshape(self._shape[:2])[:, 0]

    def _objects_counted(self, counts: Array) -> Array:
        """How many objects of each class and area count."""
        return np.diff(_from_zero(counts[self._objects])[self._object_ends], prepend=0)


class _Flat:
    """What is joined to the arrays of `Matched`, class after class, area after area."""

    def __init__(self) -> None:
        self.objects: list[Array] = []
        """The images of the objects that count, of each class and area."""
        self.lists: list[Array] = []
        """The images of detections, the surest first, without those of ignored objects."""
        self.list_of: list[int] = []
        """Which of these lists each curve has: thresholds share one unless a detection is ignored at one of them."""
        self.hits: list[Array] = []
        """The places in its list of the detections that find an object, of each curve."""

    def add(self, images: list[dict[str, Any]], thresholds: int) -> None:
        """Add the matches of the images of a class and an area."""
        images = sorted(images, key=lambda each: each["image_id"])

        def joined(name: str) -> Array:
            parts = [np.asarray(each[name], dtype=bool).reshape(thresholds, -1) for each in images]
            return np.concatenate(parts, axis=1) if parts else np.zeros((thresholds, 0), dtype=bool)

        numbers = np.array([each["image_id"] for each in images], dtype=np.int64)
        scores = np.array([score for each in images for score in each["dtScores"]])
        order = np.argsort(-scores, kind="stable")
        matched, counted = joined("dtMatched")[:, order], ~joined("dtIgnore")[:, order]
        self.objects.append(np.repeat(numbers, [sum(map(bool, each["gtInDenominator"])) for each in images]))
        of = np.repeat(numbers, [len(each["dtScores"]) for each in images])[order]
        for at, kept in enumerate(counted):
            if at == 0 or not np.array_equal(kept, counted[at - 1]):
                self.lists.append(of[kept])
            self.list_of.append(len(self.lists) - 1)
            self.hits.append(np.flatnonzero(matched[at][kept]))


def _joined(arrays: list[Array]) -> tuple[Array, Array]:
    """Arrays of numbers behind each other, and where each ends."""
    ends: Array = np.cumsum([len(each) for each in arrays], dtype=np.int64)
    return np.concatenate([np.zeros(0, dtype=np.int64), *arrays]), ends


def _from_zero(counts: Array) -> Array:
    """How many there are before each place, and in all."""
    return np.concatenate([[0], np.cumsum(counts)])
