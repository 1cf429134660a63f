"""Configurations near another: where to go when a sampler suggests what cannot be tried."""

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
