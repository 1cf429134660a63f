"""Axes: the ranges of numbers by which samplers represent distributions."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Axis:
    """A range of numbers that represent the values of a distribution.

    Args:
        kind: Real numbers, integers, or integers that number categories, which have no order.
        low: Smallest number, included.
        high: Largest number, included.
        log: Whether the scale is logarithmic.
        step: Distance of neighbours; None for a continuous axis, or for integers at distance 1.
    """

    kind: Literal["real", "integer", "category"]
    low: float
    high: float
    log: bool = False
    step: float | None = None

    def at(self, unit: float) -> float:
        """The number at the position `unit` of the axis, in [0, 1]."""
        if self.kind == "real" and self.step is None:
            low, high = self._scaled(self.low), self._scaled(self.high)
            number = low + unit * (high - low)
            return min(max(math.exp(number) if self.log else number, self.low), self.high)
        step = self.step or 1
        # Each number, also at the ends, covers half a step on both sides, so that all are equally probable.
        low, high = self._scaled(self.low - step / 2), self._scaled(self.high + step / 2)
        number = low + unit * (high - low)
        steps = round(((math.exp(number) if self.log else number) - self.low) / step)
        return self.low + min(max(steps, 0), round((self.high - self.low) / step)) * step

    def unit(self, number: float) -> float:
        """The position of a number on the axis, in [0, 1]; 0.5 if the axis has a single number."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        return 0.5 if low == high else (self._scaled(number) - low) / (high - low)

    def _scaled(self, number: float) -> float:
        return math.log(number) if self.log else number
