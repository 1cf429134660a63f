"""The prediction of any number of classes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from tuner.interfaces import Target
from tuner.interfaces.placement import Placement
from tuner.tasks.predictions.base import Options, Prediction

_PROBABILITY = 0.5
"""Least probability of a class that an image has, unless the user says otherwise: that of the metrics."""


@dataclass(frozen=True)
class LabelsPrediction(Prediction):
    """The classes of an image.

    Args:
        labels: The names and the probabilities of its classes, the likeliest first.
    """

    columns = ("label", "probability")
    options = frozenset({"threshold"})
    labels: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, output: Tensor, target: Target, placements: Sequence[Placement], options: Options) -> Iterator[Self]:
        least = _PROBABILITY if options.threshold is None else options.threshold
        ordered = output.sigmoid().sort(dim=1, descending=True, stable=True)
        for probabilities, classes in zip(ordered.values.tolist(), ordered.indices.tolist(), strict=True):
            found = zip(classes, probabilities, strict=True)
            yield cls(tuple((target.name(number), each) for number, each in found if each >= least))

    def as_dict(self) -> dict[str, Any]:
        return {"labels": self.rows()}

    def rows(self) -> list[dict[str, Any]]:
        return [{"label": label, "probability": probability} for label, probability in self.labels]

    def __str__(self) -> str:
        return ", ".join(f"{label} {probability:.0%}" for label, probability in self.labels) or "none of the classes"
