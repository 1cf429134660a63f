"""Conditions: which keys of a space are active, given the values of others.

``optimizer.momentum: {uniform: [0, 0.99], when: {optimizer.kind: sgd}}`` is active only in trials in which the
searched key ``optimizer.kind`` has the value ``sgd``. A list of values means any of them.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from tuner.config_keys import Assignment, Value
from tuner.errors import Problem, allowed
from tuner.search.distributions import index_of
from tuner.search.space import Distribution, Space

_MAX_CORNERS = 4096
"""Number of combinations up to which all are checked; above it, each pair of values occurs in some combination."""


def dependency_order(space: Space) -> list[str]:
    """The keys of a space, sorted so that each follows the keys that it depends on; otherwise in their order.

    Raises:
        ValueError: The conditions have a cycle; the text names its keys.
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
    """Whether `name` is active in a configuration that already has values for the keys that `name` depends on."""
    return all(
        parent in assignment and index_of(_any_of(required), assignment[parent]) is not None
        for parent, required in _when(space, name)
    )


def draw(space: Space, value_of: Callable[[str, Distribution], Value]) -> Assignment:
    """Build a configuration: `value_of` is called for the active keys only, each after those that it depends on."""
    assignment: Assignment = {}
    for name in dependency_order(space):
        if is_active(space, name, assignment):
            assignment[name] = value_of(name, space[name])
    return {name: assignment[name] for name in space if name in assignment}


def activating_values(space: Space, name: str) -> Assignment:
    """Values of the keys that `name` depends on, with which `name` is active."""
    values: Assignment = {}
    for parent, required in _when(space, name):
        values |= activating_values(space, parent) | {parent: _any_of(required)[0]}
    return values


def combinations(space: Space) -> Iterator[Assignment]:
    """Every configuration of a finite space, the last key changing fastest."""

    def assign(names: list[str], assignment: Assignment) -> Iterator[Assignment]:
        if not names:
            yield {name: assignment[name] for name in space if name in assignment}
            return
        name, *rest = names
        if not is_active(space, name, assignment):
            yield from assign(rest, assignment)
            return
        for value in space[name].values() or []:
            yield from assign(rest, assignment | {name: value})

    yield from assign(dependency_order(space), {})


def corners(space: Space) -> Iterator[Assignment]:
    """The configurations with both ends of every range and with every choice: if they are valid, so is the space."""
    names = dependency_order(space)
    # The values in conditions are added, because they activate further keys.
    in_conditions: dict[str, list[Value]] = {name: [] for name in names}
    for name in names:
        for parent, required in _when(space, name):
            in_conditions[parent] += _any_of(required)
    ends = {name: _distinct([*space[name].corners(), *in_conditions[name]]) for name in names}
    count = 1
    for values in ends.values():
        count *= len(values)
    seen: set[str] = set()
    every = (dict(zip(names, chosen, strict=True)) for chosen in product(*ends.values()))
    for corner in every if count <= _MAX_CORNERS or len(names) == 1 else _pairs(space, ends):
        active = draw(space, lambda name, _, corner=corner: corner[name])  # type: ignore[misc]
        if repr(active) not in seen:
            seen.add(repr(active))
            yield active


def check_conditions(space: Space) -> Iterator[Problem]:
    """The mistakes in the conditions of a space."""
    are_keys_known = True
    for name, distribution in space.items():
        for parent, required in distribution.when.items():
            key = f"space.{name}.when.{parent}"
            if parent not in space:
                are_keys_known = False
                others = [other for other in space if other != name]
                yield Problem("is not searched: a condition needs a searched key", key, hint=allowed(parent, others))
                continue
            if not _any_of(required):
                yield Problem("lists no value: the key would never be active", key, hint="leave the condition out")
            for value in _any_of(required):
                if space[parent].values() is None:
                    hint = "use a choice, a grid or whole numbers in a condition"
                    yield Problem(f"{parent} is continuous: it never equals {value!r} exactly", key, hint=hint)
                    break
                try:
                    space[parent].encode(value)
                except ValueError as error:
                    yield Problem(f"{parent} never takes this value: {error}", key)
    if are_keys_known:
        try:
            dependency_order(space)
        except ValueError as error:
            yield Problem(f"the conditions have a cycle: {error}", "space", hint="leave one of them out")


def _when(space: Space, name: str) -> Iterator[tuple[str, Any]]:
    yield from space[name].when.items()


def _any_of(required: Any) -> list[Value]:
    return required if isinstance(required, list) else [required]


def _distinct(values: list[Value]) -> list[Value]:
    return [value for i, value in enumerate(values) if index_of(values[:i], value) is None]


def _pairs(space: Space, ends: dict[str, list[Value]]) -> Iterator[Assignment]:
    """Combinations in which each pair of values of two keys occurs; the other keys have their first or last value."""
    names = list(ends)
    for index in (0, -1):
        rest = {name: values[index] for name, values in ends.items()}
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                parents = activating_values(space, one) | activating_values(space, other)
                for a, b in product(ends[one], ends[other]):
                    yield rest | parents | {one: a, other: b}
