"""Axes: what a sampler sees of a search space."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Axis:
    """A distribution as a sampler sees it: a range of numbers, which stand for the values.

    Args:
        kind: Real numbers, whole numbers, or whole numbers that name categories and have no order.
        low: Smallest, included.
        high: Largest, included.
        log: Whether distances count in orders of magnitude.
        step: Distance of neighbours; None for a continuum, and for 1 between whole numbers.
    """

    kind: Literal["real", "integer", "category"]
    low: float
    high: float
    log: bool = False
    step: float | None = None

    def at(self, unit: float) -> float:
        """The number below which a share `unit` in [0, 1] of the axis lies."""
        if self.kind == "real" and self.step is None:
            low, high = self._scaled(self.low), self._scaled(self.high)
            number = low + unit * (high - low)
            return min(max(math.exp(number) if self.log else number, self.low), self.high)
        step = self.step or 1
        # Each of the numbers owns half a step on both sides, the ends too.
        low, high = self._scaled(self.low - step / 2), self._scaled(self.high + step / 2)
        number = low + unit * (high - low)
        steps = round(((math.exp(number) if self.log else number) - self.low) / step)
        return self.low + min(max(steps, 0), round((self.high - self.low) / step)) * step

    def unit(self, number: float) -> float:
        """Where in [0, 1] a number lies."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        return 0.5 if low == high else (self._scaled(number) - low) / (high - low)

    def _scaled(self, number: float) -> float:
        return math.log(number) if self.log else number
