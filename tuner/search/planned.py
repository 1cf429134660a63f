"""Searches that are plans: a list drawn up before anything starts, the same whatever order trials finish in."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tuner.config import Config
from tuner.config_keys import Assignment, Value
from tuner.errors import Problem, allowed
from tuner.search.conditions import combinations, draw, is_active
from tuner.search.distributions import same
from tuner.search.space import Space

Allows = Callable[[Assignment], bool]
"""Whether a configuration may be tried at all."""

_MOST_PLANNED = 100_000  # configurations, each of which is checked before anything starts
_DRAWS = 1000  # in a row that were all known: by then a finite space is as good as exhausted


class Search(Config):
    is_exhaustive: ClassVar[bool] = False
    """Whether every configuration of the space is tried, and no other."""
    is_planned: ClassVar[bool] = True
    """Whether all configurations are known before the first trial."""
    most_objectives: ClassVar[int | None] = None
    """How many objectives it can have; None for any number."""
    learns_constraints: ClassVar[bool] = True
    """Whether a trial that misses a measured constraint has it look elsewhere."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the experiment: of what is drawn, and with each trial's configuration of that trial."""
    initial: list[dict[str, Any]] = Field(default_factory=list)
    """Configurations to try first: searched keys and their values; a key that is left out is drawn."""

    def check(self, space: Space) -> Iterator[Problem]:
        """What keeps this space from being searched this way."""
        for place, configuration in enumerate(self.initial):
            for name, value in configuration.items():
                key = f"search.initial.{place}.{name}"
                if name not in space:
                    yield Problem("is not searched", key, hint=allowed(name, space))
                    continue
                try:
                    space[name].encode(value)
                except ValueError as error:
                    yield Problem(f"is outside the space: {error}", key)
                if not is_active(space, name, configuration):
                    others = ", ".join(f"{other}: {wanted}" for other, wanted in space[name].when.items())
                    hint = f"its condition is {others}; write that into it, too, or leave {name} out"
                    yield Problem("does not count in this configuration", key, hint=hint)

    def plan(self, space: Space, allows: Allows) -> list[Assignment] | None:
        """What each trial takes for the searched keys; None where that hangs on what came out before."""
        return None

    @property
    def tries_again(self) -> bool:
        """Whether a configuration may be tried twice, with another seed."""
        return False

    @property
    def teacher(self) -> str | None:
        """An MLflow experiment, or a run of a job, whose trials it learns from first; None for none."""
        return None

    def explain(self, space: Space, objectives: int, prunes: bool) -> str:
        """What the user should know of the sampler that was chosen, and why; empty where there was no choice."""
        return ""

    def having(self, trials: int) -> "Search":
        """The same with so many trials.

        Raises:
            ValueError: How many there are is not for anybody to say.
        """
        raise ValueError(f"{getattr(self, 'kind', '')} search has tried everything that it would")


class Grid(Search):
    """Every combination of the values in the space, the last key changing fastest."""

    is_exhaustive: ClassVar[bool] = True
    kind: Literal["grid"] = "grid"

    def check(self, space: Space) -> Iterator[Problem]:
        yield from super().check(space)
        for name, distribution in space.items():
            if distribution.values() is None:
                hint = "write {grid: [...]}, give it a step, or use search: {kind: random, trials: 20}"
                yield Problem("a grid search cannot try a continuous range", key=f"space.{name}", hint=hint)
        # Where there is a continuum, there are none.
        if next(islice(combinations(space), _MOST_PLANNED, None), None) is not None:
            hint = "leave values out, or use search: {kind: random, trials: 20}"
            yield Problem(f"the grid has more than {_MOST_PLANNED} combinations", "space", hint=hint)

    def plan(self, space: Space, allows: Allows) -> list[Assignment]:
        """Every combination, those of `initial` first."""

        def place(assignment: Assignment) -> int:
            begins = (
                i
                for i, first in enumerate(self.initial)
                if all(name in assignment and same(value, assignment[name]) for name, value in first.items())
            )
            return next(begins, len(self.initial))

        return sorted(filter(allows, combinations(space)), key=place)


class CountedSearch(Search):
    trials: int = Field(30, ge=1)
    """Number of trials; fewer where the space has fewer configurations."""

    def check(self, space: Space) -> Iterator[Problem]:
        yield from super().check(space)
        if not space:
            hint = "say what to vary, such as optimizer.lr: {loguniform: [1e-4, 1e-1]}, or use search: {kind: grid}"
            yield Problem(f"{getattr(self, 'kind', '')} search has nothing to vary", key="space", hint=hint)
        if self.trials > _MOST_PLANNED and self.is_planned:
            hint = "search less at a time, or use search: {kind: bayesian}, which plans nothing ahead, and a timeout"
            yield Problem(
                f"{self.trials} trials are more than the {_MOST_PLANNED} of a plan", "search.trials", hint=hint
            )
        if len(self.initial) > self.trials:
            message = f"{len(self.initial)} configurations are to be tried first, in {self.trials} trials"
            yield Problem(message, "search.initial", hint="raise search.trials")

    def having(self, trials: int) -> "CountedSearch":
        return self.model_copy(update={"trials": trials})

    def _distinct(self, draws: Iterable[Callable[[], Assignment]], allows: Allows) -> list[Assignment]:
        """For each of `draws` the first allowed configuration out of it that did not come before."""
        drawn: list[Assignment] = []
        known: set[str] = set()
        for number, one in enumerate(draws):
            for _ in range(_DRAWS):
                assignment = one()
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
    """Independent draws from the space, no configuration twice: it would give the same numbers again."""

    kind: Literal["random"] = "random"
    trials: int = Field(10, ge=1)
    """Number of trials; fewer where the space has fewer configurations."""

    def plan(self, space: Space, allows: Allows) -> list[Assignment]:
        """A longer plan begins with the shorter one."""

        def drawer(number: int) -> Callable[[], Assignment]:
            rng = np.random.default_rng([self.seed, number])
            first = self._first(number)
            return lambda: draw(space, lambda name, what: first[name] if name in first else what.sample(rng))

        return self._distinct(map(drawer, range(self.trials)), allows)


class QMC(CountedSearch):
    """Quasi-random search: a scrambled Sobol sequence, which fills the space more evenly than chance (Owen, 1998).

    It is drawn by SciPy over all keys at once, choices and conditions included; Optuna's own draws those at random,
    and the first trial, too.
    """

    kind: Literal["qmc"] = "qmc"

    def plan(self, space: Space, allows: Allows) -> list[Assignment]:
        """A longer plan begins with the shorter one."""
        from scipy.stats.qmc import Sobol

        points = iter(_points(Sobol(max(1, len(space)), rng=np.random.default_rng(self.seed))))

        def drawer(number: int) -> Callable[[], Assignment]:
            first = self._first(number)

            def one() -> Assignment:
                units = dict(zip(space, next(points), strict=False))

                def value(name: str, what: Any) -> Value:
                    return first[name] if name in first else what.decode(what.axis().at(units[name]))

                return draw(space, value)

            return one

        return self._distinct(map(drawer, range(self.trials)), allows)


def _points(sequence: Any) -> Iterator[list[float]]:
    size = 64  # a power of two keeps the sequence balanced
    while True:
        yield from sequence.random(size).tolist()
