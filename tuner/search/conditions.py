"""Conditions: which keys of a space count, given what the others are.

``optimizer.momentum: {uniform: [0, 0.99], when: {optimizer.kind: sgd}}`` is searched only in trials whose
``optimizer.kind`` is searched, too, and came out as ``sgd``. A list of values means any of them.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from tuner.config_keys import Assignment, Value
from tuner.errors import Problem, allowed
from tuner.search.distributions import place_in
from tuner.search.space import Distribution, Space

_MOST_CORNERS = 4096
"""Combinations of corners that are all looked at; beyond, each pair of them is, in some combination."""


def ordered(space: Space) -> list[str]:
    """The keys of a space, each after those that it depends on, else as they stand.

    Raises:
        ValueError: The conditions go round in a circle; its text names the keys.
    """
    order: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ValueError(" -> ".join((*path[path.index(name) :], name)))
        if name not in order and name in space:
            for parent in space[name].when:
                visit(parent, (*path, name))
            order.append(name)

    for name in space:
        visit(name, ())
    return order


def is_active(space: Space, name: str, assignment: Assignment) -> bool:
    """Whether `name` counts in a trial that has taken `assignment` so far: all that `name` depends on is decided."""
    return all(
        parent in assignment and place_in(_any_of(wanted), assignment[parent]) is not None
        for parent, wanted in _when(space, name)
    )


def draw(space: Space, value_of: Callable[[str, Distribution], Value]) -> Assignment:
    """A configuration, key by key: `value_of` is asked only for the keys that count, in the order of the space."""
    assignment: Assignment = {}
    for name in ordered(space):
        if is_active(space, name, assignment):
            assignment[name] = value_of(name, space[name])
    return {name: assignment[name] for name in space if name in assignment}


def needed(space: Space, name: str) -> Assignment:
    """Values of the keys that `name` depends on, with which it counts."""
    values: Assignment = {}
    for parent, wanted in _when(space, name):
        values |= needed(space, parent) | {parent: _any_of(wanted)[0]}
    return values


def combinations(space: Space) -> Iterator[Assignment]:
    """Every configuration of a finite space, the last key changing fastest."""

    def below(names: list[str], assignment: Assignment) -> Iterator[Assignment]:
        if not names:
            yield {name: assignment[name] for name in space if name in assignment}
            return
        name, *rest = names
        if not is_active(space, name, assignment):
            yield from below(rest, assignment)
            return
        for value in space[name].values() or []:
            yield from below(rest, assignment | {name: value})

    yield from below(ordered(space), {})


def corners(space: Space) -> Iterator[Assignment]:
    """The configurations at the ends of every range and with every choice, that decide whether a space is allowed."""
    names = ordered(space)
    # A value that a condition waits for is a corner, too: behind it lie others.
    waited: dict[str, list[Value]] = {name: [] for name in names}
    for name in names:
        for parent, wanted in _when(space, name):
            waited[parent] += _any_of(wanted)
    ends = {name: _distinct([*space[name].corners(), *waited[name]]) for name in names}
    count = 1
    for values in ends.values():
        count *= len(values)
    told: set[str] = set()
    every = (dict(zip(names, chosen, strict=True)) for chosen in product(*ends.values()))
    for corner in every if count <= _MOST_CORNERS or len(names) == 1 else _pairs(space, ends):
        active = draw(space, lambda name, _, corner=corner: corner[name])  # type: ignore[misc]
        if repr(active) not in told:
            told.add(repr(active))
            yield active


def check_conditions(space: Space) -> Iterator[Problem]:
    """What is wrong with the conditions of a space."""
    sound = True
    for name, distribution in space.items():
        for parent, wanted in distribution.when.items():
            key = f"space.{name}.when.{parent}"
            if parent not in space:
                sound = False
                others = [other for other in space if other != name]
                yield Problem("is not searched, so no condition can hang on it", key, hint=allowed(parent, others))
                continue
            if not _any_of(wanted):
                yield Problem("waits for no value, and so never counts", key, hint="leave the condition out")
            for value in _any_of(wanted):
                if space[parent].values() is None:
                    hint = "let it hang on a choice, a grid or whole numbers"
                    yield Problem(f"{parent} is a continuum: it will not be {value!r} exactly", key, hint=hint)
                    break
                try:
                    space[parent].encode(value)
                except ValueError as error:
                    yield Problem(f"{parent} never takes this value: {error}", key)
    if sound:
        try:
            ordered(space)
        except ValueError as error:
            yield Problem(f"the conditions go round in a circle: {error}", "space", hint="leave one of them out")


def _when(space: Space, name: str) -> Iterator[tuple[str, Any]]:
    yield from space[name].when.items()


def _any_of(wanted: Any) -> list[Value]:
    return wanted if isinstance(wanted, list) else [wanted]


def _distinct(values: list[Value]) -> list[Value]:
    return [value for i, value in enumerate(values) if place_in(values[:i], value) is None]


def _pairs(space: Space, ends: dict[str, list[Value]]) -> Iterator[Assignment]:
    """Combinations in which each pair of values of two keys stands together at least once, where it can."""
    names = list(ends)
    for place in (0, -1):
        rest = {name: values[place] for name, values in ends.items()}
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                behind = needed(space, one) | needed(space, other)
                for a, b in product(ends[one], ends[other]):
                    yield rest | behind | {one: a, other: b}
