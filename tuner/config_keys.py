"""Dotted keys: the one place that knows what ``a.b.c`` names in a tree of mappings and lists.

A mapping that the user fills, such as the ``config`` of a function of their own, may hold keys with dots in them. In
``{"optimizer.lr": 0.5}`` as in ``{optimizer: {lr: 0.5}}`` the name ``optimizer.lr`` is the key that is there.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tuner.errors import Mistakes, Problem, UserError

Key = tuple[str, ...]
"""A path into nested mappings and lists, such as ``("trial", "optimizer", "lr")``; places in a list as numbers."""

Value = Any
"""One value of a hyperparameter: a number, a string, a boolean, or a list or mapping of these."""

Assignment = dict[str, Value]
"""Dotted key of the trial, to the value that one trial takes."""


def dotted(key: Key) -> str:
    """A path as it is written: ``trial.optimizer.lr``."""
    return ".".join(key)


def paths(tree: Any, name: str) -> Iterator[Key]:
    """Every path in `tree` that is written `name`; more than one only where a key holds dots itself."""
    for key, below in _items(tree):
        if key == name:
            yield (key,)
        elif name.startswith(f"{key}."):
            yield from ((key, *rest) for rest in paths(below, name[len(key) + 1 :]))


def path_of(tree: Any, name: str, is_by_name: Callable[[Key], bool] = lambda key: False) -> Key:
    """The path in `tree` that `name` stands for, as `nearest` has it.

    Raises:
        UserError: There are several.
    """
    if len(list(paths(tree, name))) > 1:
        raise UserError(_ambiguous(name))
    return nearest(tree, name, is_by_name)


def nearest(tree: Any, name: str, is_by_name: Callable[[Key], bool] = lambda key: False) -> Key:
    """The path in `tree` that `name` stands for: one that is there, else as far as there is one, and then by words.

    Args:
        tree: Nested mappings and lists.
        name: A dotted key.
        is_by_name: Whether what is new at a path is a key by its whole name, dots included.
    """
    key: Key = ()
    there = next(paths(tree, name), None)
    here, rest = tree, name
    while there is None and rest:
        known = [(part, below) for part, below in _items(here) if rest == part or rest.startswith(f"{part}.")]
        new = rest if is_by_name(key) else rest.partition(".")[0]
        part, here = max(known, key=lambda pair: len(pair[0]), default=(new, None))
        key, rest = (*key, part), rest[len(part) + 1 :]
    return key if there is None else there


def names(tree: Any) -> Iterator[str]:
    """The dotted name of everything in `tree`, mappings included."""
    for key, below in _items(tree):
        yield key
        if isinstance(below, Mapping):
            yield from (f"{key}.{name}" for name in names(below))


def check_unambiguous(tree: Mapping[str, Any]) -> None:
    """Raise Mistakes where two keys of a mapping that the user filled are written the same."""
    twice = [name for name, count in Counter(names(tree)).items() if count > 1]
    if twice:
        raise Mistakes(*(_ambiguous(name) for name in twice))


def put(data: dict[str, Any], key: Key, value: Any) -> None:
    """Set `value` at `key`, making the mappings on the way.

    Raises:
        UserError: The way leads through a value that has no keys.
    """
    here: Any = data
    for depth, part in enumerate(key[:-1]):
        below = here.get(part)
        if below is None:
            below = here[part] = {}
        if not isinstance(below, dict):
            message = f"{dotted(key[: depth + 1])} is {below!r}: it has no keys of its own"
            raise UserError(Problem(message, key=dotted(key)))
        here = below
    here[key[-1]] = value


def _ambiguous(name: str) -> Problem:
    message = "stands there twice: as a key with dots in it, and as keys below each other"
    return Problem(message, name, hint="keep one of them: a search, an override and the record know both by this name")


def _items(tree: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        yield from ((str(key), below) for key, below in tree.items())
    elif isinstance(tree, list):
        yield from ((str(place), below) for place, below in enumerate(tree))


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
