"""Hyperparameters in few words: the label of a trial."""

from collections.abc import Iterable

from tuner.config_keys import Assignment, Value


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Each dotted key by as few of its last parts as tell it from the others."""
    keys = list(keys)
    short = {}
    for key in keys:
        parts = key.split(".")
        for count in range(1, len(parts) + 1):
            name = ".".join(parts[-count:])
            if sum(other == name or other.endswith(f".{name}") for other in keys) == 1:
                break
        short[key] = name
    return short


def brief(value: Value) -> str:
    """A value in as few characters as a table has room for."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def label(assignment: Assignment) -> str:
    """An assignment in a few words, such as ``lr=0.01 momentum=0.9``."""
    names = short_names(assignment)
    return " ".join(f"{names[key]}={brief(value)}" for key, value in assignment.items())
