"""How configurations are found. A new way is a class here and a name in the union.

Grid and random search are plans: a list drawn up before anything starts, the same whatever order trials finish in.
"""

from collections.abc import Iterator
from itertools import product
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tuner.config import Config
from tuner.errors import Problem
from tuner.space import Assignment, Space


class _Search(Config):
    seed: int = Field(0, ge=0)
    """Seed of the experiment: of what is drawn, and with each trial's configuration of that trial."""


class Grid(_Search):
    """Every combination of the values in the space, the last key changing fastest."""

    kind: Literal["grid"] = "grid"

    def check(self, space: Space) -> Iterator[Problem]:
        """What keeps this space from being searched this way."""
        for name, distribution in space.items():
            if distribution.values() is None:
                hint = "write {grid: [...]}, give it a step, or use search: {kind: random, trials: 20}"
                yield Problem("a grid search cannot try a continuous range", key=f"space.{name}", hint=hint)

    def plan(self, space: Space) -> list[Assignment]:
        """What each trial takes for the searched keys."""
        axes = [distribution.values() or [] for distribution in space.values()]
        return [dict(zip(space, values, strict=True)) for values in product(*axes)]


_DRAWS = 1000  # in a row that were all known: by then a finite space is as good as exhausted


class Random(_Search):
    """Independent draws from the space, no configuration twice: it would give the same numbers again."""

    kind: Literal["random"] = "random"
    trials: int = Field(10, ge=1)
    """Number of trials; fewer where the space has fewer configurations."""

    def check(self, space: Space) -> Iterator[Problem]:
        """What keeps this space from being searched this way."""
        if not space:
            hint = "say what to vary, such as optimizer.lr: {loguniform: [1e-4, 1e-1]}, or use search: {kind: grid}"
            yield Problem("random search has nothing to vary", key="space", hint=hint)

    def plan(self, space: Space) -> list[Assignment]:
        """What each trial takes for the searched keys. A longer plan begins with the shorter one."""
        drawn: list[Assignment] = []
        known: set[str] = set()
        for number in range(self.trials):
            rng = np.random.default_rng([self.seed, number])
            for _ in range(_DRAWS):
                assignment = {name: distribution.sample(rng) for name, distribution in space.items()}
                if repr(assignment) not in known:
                    known.add(repr(assignment))
                    drawn.append(assignment)
                    break
            else:
                break
        return drawn


SearchConfig = Annotated[Grid | Random, Field(discriminator="kind")]
