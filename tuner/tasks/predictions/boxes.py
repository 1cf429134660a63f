"""The prediction of objects with boxes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from tuner.formatting import some
from tuner.interfaces import Target
from tuner.interfaces.placement import Placement
from tuner.tasks.predictions.base import RLE, FoundObject, Options, Prediction

SCORE = 0.25
"""Least score of a detection that counts, unless the user says otherwise."""
_BOX = 6
"""Values of a detection before those of its mask."""


@dataclass(frozen=True)
class BoxesPrediction(Prediction):
    """The objects of an image.

    Args:
        boxes: The objects, the surest first.
    """

    columns: ClassVar[tuple[str, ...]] = ("label", "score", "left", "top", "right", "bottom")
    options = frozenset({"threshold"})
    finds_objects = True
    boxes: tuple[FoundObject, ...]

    @classmethod
    def of(cls, output: Tensor, target: Target, placements: Sequence[Placement], options: Options) -> Iterator[Self]:
        least = SCORE if options.threshold is None else options.threshold
        for rows, placement in zip(output, placements, strict=True):
            found = rows[(rows[:, 5] >= 0) & (rows[:, 4] >= least)].float().cpu()
            found = found[found[:, 4].argsort(descending=True, stable=True)]
            edges = placement.boxes(found[:, :4])
            is_seen = (edges[:, 2:] > edges[:, :2]).all(dim=1)  # not only on what `pad` adds
            objects = []
            for row, (left, top, right, bottom) in zip(found[is_seen], edges[is_seen].tolist(), strict=True):
                score, number = row[4].item(), int(row[5])
                box, mask = (left, top, right, bottom), cls._mask_of(row[_BOX:], placement)
                objects.append(FoundObject(box, target.name(number), number, score, mask))
            yield cls(tuple(objects))

    @classmethod
    def _mask_of(cls, values: Tensor, placement: Placement) -> RLE | None:
        """The mask of a detection, by its values behind the box."""
        return None

    @property
    def objects(self) -> tuple[FoundObject, ...]:
        return self.boxes

    def as_dict(self) -> dict[str, Any]:
        return {"boxes": [each.as_dict() for each in self.boxes]}

    def rows(self) -> list[dict[str, Any]]:
        edges = ("left", "top", "right", "bottom")
        return [
            {"label": each.label, "score": each.score} | dict(zip(edges, each.box, strict=True)) for each in self.boxes
        ]

    def __str__(self) -> str:
        counts = Counter(each.label for each in self.boxes)
        return some([f"{count} {label}" for label, count in counts.most_common()]) if counts else "nothing"
