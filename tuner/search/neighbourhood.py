"""Configurations near another: where to go when a sampler suggests what cannot be tried, or where trials fail."""

from collections.abc import Iterator, Sequence

import numpy as np

from tuner.config_keys import Assignment, Value
from tuner.search.conditions import draw
from tuner.search.distributions import place_in, same
from tuner.search.space import Distribution, Space

_SHARES = (0.75, 0.5, 0.25, 0.1)  # of the way to a configuration, the furthest first


def towards(space: Space, one: Assignment, other: Assignment, rng: np.random.Generator) -> Iterator[Assignment]:
    """Configurations on the way from one to another, those near the other first; choices stay those of the first."""
    for share in _SHARES:

        def value(name: str, distribution: Distribution, share: float = share) -> Value:
            if name not in one:
                return other[name] if name in other else distribution.sample(rng)
            axis = distribution.axis()
            if name not in other or axis.kind == "category":
                return one[name]
            here, there = (axis.unit(distribution.encode(each[name])) for each in (one, other))
            return distribution.decode(axis.at(here + share * (there - here)))

        yield draw(space, value)


def beside(space: Space, assignment: Assignment, rng: np.random.Generator) -> Iterator[Assignment]:
    """Configurations that are one step from another in one key with finitely many values, in any order."""
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
    place = place_in(values, value)
    assert place is not None, f"{value!r} is none of {values}"
    return [values[there] for there in (place - 1, place + 1) if 0 <= there < len(values)]


_NEIGHBOURS = 3  # finished trials that tell whether a region fails


class Regions:
    """The finished trials of a space, near and far: Optuna's samplers come back to where trials failed.

    Distances are Euclidean, each key on its own scale in [0, 1].
    """

    def __init__(self, space: Space) -> None:
        self._axes = {name: (distribution, distribution.axis()) for name, distribution in space.items()}
        self._assignments: list[Assignment] = []
        self._points: list[list[float]] = []
        self._failed: list[bool] = []

    def add(self, assignment: Assignment, *, failed: bool) -> None:
        """Note where a trial ended, and whether it failed."""
        self._assignments.append(assignment)
        self._points.append(self._point(assignment))
        self._failed.append(failed)

    def risk(self, assignment: Assignment) -> float:
        """The share of the nearest finished trials that failed, in [0, 1]; 0 while too few are finished."""
        if not any(self._failed) or len(self._failed) <= _NEIGHBOURS:
            return 0.0
        return float(np.mean(np.array(self._failed)[self._nearest(assignment)[:_NEIGHBOURS]]))

    def nearest_sound(self, assignment: Assignment) -> Assignment | None:
        """The nearest configuration whose trial did not fail; None while there is none."""
        near = (place for place in self._nearest(assignment) if not self._failed[place])
        return next((self._assignments[place] for place in near), None)

    def _nearest(self, assignment: Assignment) -> list[int]:
        """The places of all finished trials, the nearest first."""
        if not self._points:
            return []
        categories = np.array([axis.kind == "category" for _, axis in self._axes.values()])
        points, here = np.array(self._points), np.array(self._point(assignment))
        difference = np.abs(points - here)
        # Another category, or a key that counts in only one of the two, is as far as it gets.
        difference = np.where(np.isnan(difference) | (categories & (difference > 0)), 1.0, difference)
        difference[np.isnan(points) & np.isnan(here)] = 0.0
        return [int(place) for place in np.argsort(np.square(difference).sum(axis=1), kind="stable")]

    def _point(self, assignment: Assignment) -> list[float]:
        return [
            axis.unit(distribution.encode(assignment[name])) if name in assignment else np.nan
            for name, (distribution, axis) in self._axes.items()
        ]
