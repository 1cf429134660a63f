"""Planned searches: all configurations are known before the job starts, in whatever order the trials finish."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tuner.config import Config
from tuner.config_keys import Assignment, Value
from tuner.errors import Problem, allowed
from tuner.formatting import counted
from tuner.search.conditions import combinations, draw, is_active
from tuner.search.distributions import same
from tuner.search.space import Space

Allows = Callable[[Assignment], bool]
"""A function that returns whether a configuration may be tried."""

_MAX_PLANNED = 100_000  # configurations, each of which is validated before the job starts
_MAX_DRAWS = 1000  # draws in a row that are known or not allowed; after them the space counts as exhausted


class Search(Config):
    """The base class of searches."""

    is_exhaustive: ClassVar[bool] = False
    """Whether every configuration of the space is tried, and no other."""
    is_planned: ClassVar[bool] = True
    """Whether all configurations are known before the first trial."""
    max_objectives: ClassVar[int | None] = None
    """The largest number of objectives; None for any number."""
    learns_constraints: ClassVar[bool] = True
    """Whether the search avoids configurations whose trials violate measured constraints."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the experiment: of the search and, with the configuration of each trial, of that trial."""
    initial: list[dict[str, Any]] = Field(default_factory=list)
    """Configurations to try first: searched keys and their values. Keys that are left out are drawn."""

    def check(self, space: Space) -> Iterator[Problem]:
        """The reasons why this search cannot be used with a space."""
        for index, configuration in enumerate(self.initial):
            for name, value in configuration.items():
                key = f"search.initial.{index}.{name}"
                if name not in space:
                    yield Problem("is not searched", key, hint=allowed(name, space))
                    continue
                try:
                    space[name].encode(value)
                except ValueError as error:
                    yield Problem(f"is outside the space: {error}", key)
                if not is_active(space, name, configuration):
                    others = ", ".join(f"{other}: {required}" for other, required in space[name].when.items())
                    hint = f"its condition is {others}; add that to the configuration, or leave {name} out"
                    yield Problem("is not active in this configuration", key, hint=hint)

    def plan(self, space: Space, allows: Allows) -> list[Assignment] | None:
        """The configurations of all trials, in order; None if they depend on the results of earlier trials."""
        return None

    @property
    def allows_duplicates(self) -> bool:
        """Whether a configuration may be tried twice, with different seeds."""
        return False

    @property
    def warm_start_source(self) -> str | None:
        """The MLflow experiment, by name, or run of a job, by id, whose trials it learns from; None for none."""
        return None

    def explain(self, space: Space, objectives: int, prunes: bool) -> str:
        """A sentence on the sampler that was chosen automatically, and why; empty if none was."""
        return ""

    def with_trials(self, trials: int) -> "Search":
        """A copy with another number of trials.

        Raises:
            ValueError: The space determines the number of trials.
        """
        raise ValueError(f"{getattr(self, 'kind', '')} search has tried every configuration of its space")


class Grid(Search):
    """Grid search: every combination of the values in the space, the last key changing fastest."""

    is_exhaustive: ClassVar[bool] = True
    kind: Literal["grid"] = "grid"

    def check(self, space: Space) -> Iterator[Problem]:
        yield from super().check(space)
        for name, distribution in space.items():
            if distribution.values() is None:
                hint = "write {grid: [...]}, give it a step, or use search: {kind: random, trials: 20}"
                yield Problem("a grid search cannot try a continuous range", key=f"space.{name}", hint=hint)
        # A space with a continuous range has no combinations.
        if next(islice(combinations(space), _MAX_PLANNED, None), None) is not None:
            hint = "leave values out, or use search: {kind: random, trials: 20}"
            yield Problem(f"the grid has more than {_MAX_PLANNED} combinations", "space", hint=hint)

    def plan(self, space: Space, allows: Allows) -> list[Assignment]:
        """Every allowed combination, those of `initial` first."""

        def rank(assignment: Assignment) -> int:
            matching = (
                index
                for index, first in enumerate(self.initial)
                if all(name in assignment and same(value, assignment[name]) for name, value in first.items())
            )
            return next(matching, len(self.initial))

        return sorted(filter(allows, combinations(space)), key=rank)


class CountedSearch(Search):
    """The base class of searches whose number of trials is configured."""

    trials: int = Field(30, ge=1)
    """Number of trials; fewer if the space has fewer configurations."""

    def check(self, space: Space) -> Iterator[Problem]:
        yield from super().check(space)
        if not space:
            hint = "add a key, such as optimizer.lr: {loguniform: [1e-4, 1e-1]}, or use search: {kind: grid}"
            yield Problem(f"{getattr(self, 'kind', '')} search has nothing to vary", key="space", hint=hint)
        if self.trials > _MAX_PLANNED and self.is_planned:
            hint = "use fewer trials, or search: {kind: bayesian}, which has no plan, and a timeout"
            message = f"{self.trials} trials are too many for a plan, which has at most {_MAX_PLANNED}"
            yield Problem(message, "search.trials", hint=hint)
        if len(self.initial) > self.trials:
            message = (
                f"has {counted(len(self.initial), 'configuration')}, but there are only {counted(self.trials, 'trial')}"
            )
            yield Problem(message, "search.initial", hint="raise search.trials")

    def with_trials(self, trials: int) -> "CountedSearch":
        return self.model_copy(update={"trials": trials})

    def _distinct(self, drawers: Iterable[Callable[[], Assignment]], allows: Allows) -> list[Assignment]:
        """The first configuration from each of `drawers` that is allowed and new."""
        drawn: list[Assignment] = []
        known: set[str] = set()
        for number, draw_one in enumerate(drawers):
            for _ in range(_MAX_DRAWS):
                assignment = draw_one()
                if repr(assignment) not in known and allows(assignment):
                    known.add(repr(assignment))
                    drawn.append(assignment)
                    break
            else:
                if number >= len(self.initial):
                    break
        return drawn

    def _first(self, number: int) -> Assignment:
        return self.initial[number] if number < len(self.initial) else {}


class Random(CountedSearch):
    """Random search: independent draws from the space, without duplicates, which would give the same result again."""

    kind: Literal["random"] = "random"
    trials: int = Field(10, ge=1)
    """Number of trials; fewer if the space has fewer configurations."""

    def plan(self, space: Space, allows: Allows) -> list[Assignment]:
        """Draw the configurations. A plan with more trials begins with the plan with fewer trials."""

        def drawer(number: int) -> Callable[[], Assignment]:
            rng = np.random.default_rng([self.seed, number])
            first = self._first(number)
            return lambda: draw(
                space, lambda name, distribution: first[name] if name in first else distribution.sample(rng)
            )

        return self._distinct(map(drawer, range(self.trials)), allows)


class QMC(CountedSearch):
    """Quasi-random search: a scrambled Sobol sequence (Owen, 1998).

    It covers the space more evenly than random draws. The sequence includes choices and keys with conditions,
    which Optuna's QMC sampler draws independently.
    """

    kind: Literal["qmc"] = "qmc"

    def plan(self, space: Space, allows: Allows) -> list[Assignment]:
        """Draw the configurations. A plan with more trials begins with the plan with fewer trials."""
        from scipy.stats.qmc import Sobol

        points = iter(_points(Sobol(max(1, len(space)), rng=np.random.default_rng(self.seed))))

        def drawer(number: int) -> Callable[[], Assignment]:
            first = self._first(number)

            def one() -> Assignment:
                units = dict(zip(space, next(points), strict=False))

                def value(name: str, distribution: Any) -> Value:
                    return first[name] if name in first else distribution.decode(distribution.axis().at(units[name]))

                return draw(space, value)

            return one

        return self._distinct(map(drawer, range(self.trials)), allows)


def _points(sequence: Any) -> Iterator[list[float]]:
    size = 64  # a power of two keeps the sequence balanced
    while True:
        yield from sequence.random(size).tolist()
