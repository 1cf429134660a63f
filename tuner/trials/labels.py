"""Short texts for hyperparameters: the label of a trial."""

from collections.abc import Iterable

from tuner.config_keys import Assignment, Value


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return for each dotted key its shortest suffix that no other key has: ``lr`` for ``optimizer.lr``."""
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
    """Format a value for a table: a float with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def label(assignment: Assignment) -> str:
    """Format an assignment, such as ``lr=0.01 momentum=0.9``."""
    names = short_names(assignment)
    return " ".join(f"{names[key]}={brief(value)}" for key, value in assignment.items())
