"""Reports of a function of the user's own, reduced to plain numbers by name: nothing else leaves the worker."""

import contextlib
import math
import reprlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tuner.error_text import escaped, message_of

_LARGEST = 2**63
"""Integers from here on become floats: JSON readers and MLflow's databases take no larger integers."""

_DEEPEST = 20
"""Levels of nested dictionaries that are read: a dictionary may contain itself."""

_OURS = "tuner."
"""The prefix of the keys that tuner itself adds to a report."""


@dataclass(frozen=True)
class PlainReport:
    """The numbers of a report.

    Args:
        numbers: The numbers by name. Names in nested dictionaries are joined as Ray Tune does: ``val/acc``.
        left_out: The reason for which each other value was left out, by name.
    """

    numbers: dict[str, int | float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def plain(report: Mapping[Any, Any], reserved: Collection[str] = (), names: Collection[str] = ()) -> PlainReport:
    """Reduce a report to its numbers. No value in it makes this raise.

    Args:
        report: The report.
        reserved: Top-level keys that Ray Tune sets itself.
        names: The objectives' metrics; an older experiment may name ``val/acc`` with a dot, ``val.acc``.
    """
    made = PlainReport()
    for name, value in _flat(report, "", made, reserved):
        if name in made.numbers:
            made.left_out[name] = "it is there twice"
            continue
        try:
            made.numbers[name] = _number(value)
        except Exception as error:  # an object of the user's own may raise anything
            made.left_out[name] = f"it was {described(value)}{_reason(error)}"
    for name in names:
        if name not in made.numbers and (now := name.replace(".", "/")) in made.numbers:
            made.numbers[name] = made.numbers.pop(now)
    return made


def described(value: Any) -> str:
    """Return a short description of a value: its type and the beginning of its `repr`."""
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if value is None:
        return "None"
    with contextlib.suppress(Exception):  # any attribute may raise, and `shape` need not be a tuple of numbers
        if math.prod(value.shape) > _FEW:
            return f"{_a(name)} of shape {tuple(value.shape)}"
    try:
        return f"{_a(name)} ({' '.join(_BRIEF.repr(value).split())})"
    except Exception:
        return f"{_a(name)} that cannot be shown"


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


_FEW = 4
"""The most elements of an array that are shown."""

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 60
_BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxset = _BRIEF.maxdict = _FEW
_BRIEF.maxlevel = 2


def _flat(
    report: Mapping[Any, Any], prefix: str, made: PlainReport, reserved: Collection[str], depth: int = 1
) -> Iterator[tuple[str, Any]]:
    """Yield the name and the value of each entry that is not a dictionary."""
    try:
        items = list(report.items())
    except Exception as error:
        made.left_out[prefix.removesuffix("/") or "the report"] = f"it cannot be read{_reason(error)}"
        return
    for key, value in items:
        try:
            name = escaped(f"{prefix}{key}")
        except Exception as error:
            made.left_out[f"{prefix}{type(key).__qualname__}"] = f"its key has no text{_reason(error)}"
            continue
        if not prefix and name in reserved:
            made.left_out[name] = "the name is Ray Tune's own"
        elif not prefix and name.startswith(_OURS):
            made.left_out[name] = "the name is tuner's own"
        elif not isinstance(value, Mapping):
            yield name, value
        elif depth < _DEEPEST:
            yield from _flat(value, f"{name}/", made, reserved, depth + 1)
        else:
            made.left_out[name] = f"it is nested more than {_DEEPEST} dictionaries deep"


class _NoNumber(TypeError):
    """The value is not a number; its description is explanation enough."""


def _number(value: Any) -> int | float:
    """Convert a value to a plain number: also a Decimal, Fraction, NumPy scalar, array or tensor of one element."""
    if isinstance(value, str | bytes | bytearray | bool) or value is None:
        raise _NoNumber
    if not isinstance(value, int | float) and hasattr(value, "item"):
        value = value.item()  # raises if there is more than one element
        if isinstance(value, bool):
            raise _NoNumber
    if isinstance(value, int) and abs(value) < _LARGEST:
        return int(value)
    if not hasattr(value, "__float__") and not hasattr(value, "__index__"):
        raise _NoNumber
    return float(value)


def _reason(error: Exception) -> str:
    if isinstance(error, _NoNumber):
        return ""
    message = " ".join(message_of(error).split())[:100]
    return f": {type(error).__name__}{f': {message}' if message else ''}"
