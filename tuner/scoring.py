"""Which report is the better one: the objective of an experiment."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.config import Config
from tuner.metrics import Mode, mode_of


class Objective(Config):
    """A metric and the direction that is better."""

    metric: str
    """Full name of the metric, such as ``val_accuracy``."""
    mode: Mode
    """max or min."""

    @classmethod
    def of_metric(cls, metric: str) -> "Objective":
        """A metric of METRICS with its own direction."""
        mode = mode_of(metric)
        assert mode is not None, f"{metric} judges nothing"
        return cls(metric=metric, mode=mode)

    def beats(self, value: float, best: float | None) -> bool:
        """Whether `value` takes the place of `best`. Of equal values the later one wins: it has trained longer."""
        if not math.isfinite(value):
            return False
        return best is None or (value >= best if self.mode == "max" else value <= best)

    def improves(self, value: float, best: float | None, by: float) -> bool:
        """Whether `value` is better than `best`, and by more than `by`."""
        if not math.isfinite(value):
            return False
        return best is None or (value > best + by if self.mode == "max" else value < best - by)

    def key(self, value: float) -> float:
        """A sort key: the best value has the smallest."""
        return -value if self.mode == "max" else value

    def of(self, metrics: Mapping[str, Any]) -> float | None:
        """Its value in a report; None where the report does not have it, or has no finite number: that is no score."""
        value = self._number(metrics)
        return value if value is not None and math.isfinite(value) else None

    def not_finite(self, metrics: Mapping[str, Any]) -> float | None:
        """Its value in a report where that is NaN or infinite; else None."""
        value = self._number(metrics)
        return None if value is None or math.isfinite(value) else value

    def _number(self, metrics: Mapping[str, Any]) -> float | None:
        value = metrics.get(self.metric)
        if value is None:
            return None
        try:
            return float(value)
        except OverflowError:  # a whole number of more than 308 digits
            return math.inf if value > 0 else -math.inf


def pareto_front(points: Sequence[Sequence[float]], objectives: Sequence[Objective]) -> list[bool]:
    """Which points are on the Pareto front: no other is as good in every objective and better in one.

    Args:
        points: One row a trial, one value an objective.
        objectives: The objectives, in the order of the values.
    """
    costs = [[o.key(value) for o, value in zip(objectives, point, strict=True)] for point in points]

    def dominates(a: list[float], b: list[float]) -> bool:
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    return [not any(dominates(other, cost) for other in costs) for cost in costs]
