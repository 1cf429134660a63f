"""Dotted keys: what ``a.b.c`` refers to in nested mappings and lists.

Mappings that the user fills, such as the ``config`` of a user's function, may have keys that contain dots. The name
``optimizer.lr`` refers to the value both in ``{"optimizer.lr": 0.5}`` and in ``{optimizer: {lr: 0.5}}``.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tuner.errors import Mistakes, Problem, UserError

Key = tuple[str, ...]
"""A path into nested mappings and lists, such as ``("trial", "optimizer", "lr")``; a list's index is a number."""

Value = Any
"""The value of a hyperparameter: a number, a string, a boolean, or a list or mapping of these."""

Assignment = dict[str, Value]
"""The configuration of a trial: dotted keys of the trial and their values."""


def dotted(key: Key) -> str:
    """Join a path with dots: ``trial.optimizer.lr``."""
    return ".".join(key)


def paths(tree: Any, name: str) -> Iterator[Key]:
    """All paths in `tree` whose dotted form is `name`; more than one only if a key contains dots."""
    for key, child in _items(tree):
        if key == name:
            yield (key,)
        elif name.startswith(f"{key}."):
            yield from ((key, *rest) for rest in paths(child, name[len(key) + 1 :]))


def path_of(tree: Any, name: str, is_by_name: Callable[[Key], bool] = lambda key: False) -> Key:
    """The path in `tree` that `name` refers to, found as by `nearest`.

    Raises:
        UserError: `name` refers to several paths.
    """
    if len(list(paths(tree, name))) > 1:
        raise UserError(_ambiguous(name))
    return nearest(tree, name, is_by_name)


def nearest(tree: Any, name: str, is_by_name: Callable[[Key], bool] = lambda key: False) -> Key:
    """The path in `tree` that `name` refers to.

    If `tree` has no such path, the existing keys are followed as far as they match and the rest is split at its dots.

    Args:
        tree: Nested mappings and lists.
        name: A dotted key.
        is_by_name: Whether the mapping at a path has dotted names as keys, so that a new key in it is not split.
    """
    existing = next(paths(tree, name), None)
    if existing is not None:
        return existing
    key: Key = ()
    node, rest = tree, name
    while rest:
        matching = [(each, child) for each, child in _items(node) if rest == each or rest.startswith(f"{each}.")]
        new = rest if is_by_name(key) else rest.partition(".")[0]
        step, node = max(matching, key=lambda pair: len(pair[0]), default=(new, None))
        key, rest = (*key, step), rest[len(step) + 1 :]
    return key


def names(tree: Any) -> Iterator[str]:
    """The dotted names of all keys in `tree`, those of mappings included."""
    for key, child in _items(tree):
        yield key
        if isinstance(child, Mapping):
            yield from (f"{key}.{name}" for name in names(child))


def check_unambiguous(tree: Mapping[str, Any]) -> None:
    """Raise Mistakes if two keys of a mapping have the same dotted name."""
    twice = [name for name, count in Counter(names(tree)).items() if count > 1]
    if twice:
        raise Mistakes(*(_ambiguous(name) for name in twice))


def put(data: dict[str, Any], key: Key, value: Any) -> None:
    """Set `value` at `key`; missing mappings on the path are created.

    Raises:
        UserError: A value on the path is not a mapping.
    """
    node: Any = data
    for depth, name in enumerate(key[:-1]):
        child = node.get(name)
        if child is None:
            child = node[name] = {}
        if not isinstance(child, dict):
            message = f"{dotted(key[: depth + 1])} is {child!r}, not a mapping: it has no keys"
            raise UserError(Problem(message, key=dotted(key)))
        node = child
    node[key[-1]] = value


def _ambiguous(name: str) -> Problem:
    message = "appears twice: as one key that contains dots, and as nested keys"
    return Problem(message, name, hint="keep one of them: space, overrides and MLflow use this name for both")


def _items(tree: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        yield from ((str(key), child) for key, child in tree.items())
    elif isinstance(tree, list):
        yield from ((str(index), child) for index, child in enumerate(tree))


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
