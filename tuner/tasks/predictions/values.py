"""The prediction of numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from tuner.interfaces import Target
from tuner.interfaces.placement import Placement
from tuner.tasks.predictions.base import Options, Prediction


@dataclass(frozen=True)
class ValuesPrediction(Prediction):
    """Numbers that are predicted for an image.

    Args:
        values: The numbers.
        unit: Their unit. Pixels are those of the model's input.
    """

    columns = ("values", "unit")
    values: tuple[float, ...]
    unit: str

    @classmethod
    def of(cls, output: Tensor, target: Target, placements: Sequence[Placement], options: Options) -> Iterator[Self]:
        for values in output.tolist():
            yield cls(tuple(values), target.unit or "")

    def as_dict(self) -> dict[str, Any]:
        return {"values": list(self.values), "unit": self.unit}

    def rows(self) -> list[dict[str, Any]]:
        return [{"values": " ".join(map(str, self.values)), "unit": self.unit}]

    def __str__(self) -> str:
        return f"{', '.join(f'{value:.4g}' for value in self.values)} {self.unit}"
