"""The prediction of a class."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from tuner.interfaces import Target
from tuner.interfaces.placement import Placement
from tuner.tasks.predictions.base import Options, Prediction


@dataclass(frozen=True)
class ClassPrediction(Prediction):
    """The class of an image.

    Args:
        top: The names and the probabilities of the likeliest classes, the likeliest first.
    """

    columns = ("label", "probability")
    options = frozenset({"top"})
    top: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, output: Tensor, target: Target, placements: Sequence[Placement], options: Options) -> Iterator[Self]:
        # Log-probabilities are logits, too.
        best = output.softmax(dim=1).topk(min(options.top, output.shape[1]), dim=1)
        for probabilities, classes in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            yield cls(tuple(zip(map(target.name, classes), probabilities, strict=True)))

    @property
    def label(self) -> str:
        """The name of the likeliest class; its index if it has none."""
        return self.top[0][0]

    @property
    def probability(self) -> float:
        """The probability of that class."""
        return self.top[0][1]

    def as_dict(self) -> dict[str, Any]:
        top = [{"label": label, "probability": probability} for label, probability in self.top]
        return {"label": self.label, "probability": self.probability, "top": top}

    def rows(self) -> list[dict[str, Any]]:
        return [{"label": self.label, "probability": self.probability}]

    def __str__(self) -> str:
        return f"{self.label} {self.probability:.0%}"
