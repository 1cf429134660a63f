"""Configurations near another one: replacements for suggestions that are not allowed or likely to fail."""

from collections.abc import Iterator, Sequence

import numpy as np

from tuner.config_keys import Assignment, Value
from tuner.search.conditions import draw
from tuner.search.distributions import index_of, same
from tuner.search.space import Distribution, Space

_SHARES = (0.75, 0.5, 0.25, 0.1)  # of the way to a configuration, the furthest first


def towards(space: Space, one: Assignment, other: Assignment, rng: np.random.Generator) -> Iterator[Assignment]:
    """Configurations between `one` and `other`, from near `other` to near `one`; choices are those of `one`."""
    for share in _SHARES:

        def value(name: str, distribution: Distribution, share: float = share) -> Value:
            if name not in one:
                return other[name] if name in other else distribution.sample(rng)
            axis = distribution.axis()
            if name not in other or axis.kind == "category":
                return one[name]
            start, end = (axis.unit(distribution.encode(each[name])) for each in (one, other))
            return distribution.decode(axis.at(start + share * (end - start)))

        yield draw(space, value)


def neighbours(space: Space, assignment: Assignment, rng: np.random.Generator) -> Iterator[Assignment]:
    """Configurations that differ from another by one step in one finite key, in random order."""
    steps = [(name, other) for name, value in assignment.items() for other in _next_to(space[name], value)]
    for step in rng.permutation(len(steps)):
        name, other = steps[int(step)]
        moved = assignment | {name: other}

        def value(name: str, distribution: Distribution, moved: Assignment = moved) -> Value:
            return moved[name] if name in moved else distribution.sample(rng)

        yield draw(space, value)


def _next_to(distribution: Distribution, value: Value) -> Sequence[Value]:
    values = distribution.values()
    if values is None:
        return []
    if distribution.axis().kind == "category":
        return [other for other in values if not same(other, value)]
    index = index_of(values, value)
    assert index is not None, f"{value!r} is not one of {values}"
    return [values[each] for each in (index - 1, index + 1) if 0 <= each < len(values)]


_NEIGHBOURS = 3  # finished trials from which the risk of failure is estimated


class Regions:
    """Estimates from the finished trials whether a configuration will fail, which Optuna's samplers do not.

    Distances are Euclidean, with each key scaled to [0, 1].
    """

    def __init__(self, space: Space) -> None:
        self._axes = {name: (distribution, distribution.axis()) for name, distribution in space.items()}
        self._assignments: list[Assignment] = []
        self._points: list[list[float]] = []
        self._failed: list[bool] = []

    def add(self, assignment: Assignment, *, failed: bool) -> None:
        """Add a finished trial."""
        self._assignments.append(assignment)
        self._points.append(self._point(assignment))
        self._failed.append(failed)

    def risk(self, assignment: Assignment) -> float:
        """The share of failures among the nearest finished trials, in [0, 1]; 0 while there are too few of them."""
        if not any(self._failed) or len(self._failed) <= _NEIGHBOURS:
            return 0.0
        return float(np.mean(np.array(self._failed)[self._nearest(assignment)[:_NEIGHBOURS]]))

    def nearest_successful(self, assignment: Assignment) -> Assignment | None:
        """The nearest configuration whose trial did not fail; None if there is none."""
        near = (index for index in self._nearest(assignment) if not self._failed[index])
        return next((self._assignments[index] for index in near), None)

    def _nearest(self, assignment: Assignment) -> list[int]:
        """The indices of all finished trials, the nearest first."""
        if not self._points:
            return []
        categories = np.array([axis.kind == "category" for _, axis in self._axes.values()])
        points, point = np.array(self._points), np.array(self._point(assignment))
        difference = np.abs(points - point)
        # Different categories, and keys that are active in only one of the two, are at the largest distance.
        difference = np.where(np.isnan(difference) | (categories & (difference > 0)), 1.0, difference)
        difference[np.isnan(points) & np.isnan(point)] = 0.0
        return [int(index) for index in np.argsort(np.square(difference).sum(axis=1), kind="stable")]

    def _point(self, assignment: Assignment) -> list[float]:
        return [
            axis.unit(distribution.encode(assignment[name])) if name in assignment else np.nan
            for name, (distribution, axis) in self._axes.items()
        ]
