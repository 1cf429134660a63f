"""Regions of a space in which trials fail.

Optuna's samplers pass over failed trials, and so come back to where they failed. A suggestion whose nearest neighbours
among the finished trials mostly failed is a risk.
"""

import numpy as np

from tuner.config_keys import Assignment
from tuner.search.space import Space

_NEIGHBOURS = 3  # finished trials that tell whether a region fails


class Regions:
    """The finished trials of a space, near and far.

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
