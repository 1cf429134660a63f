"""A report of a function of the user's own as plain numbers by name: nothing else leaves the worker."""

import contextlib
import math
import reprlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tuner.error_text import escaped, message_of

_LARGEST = 2**63
"""Whole numbers beyond it are no whole numbers to JSON's readers and MLflow's databases."""

_DEEPEST = 20
"""Levels of dictionaries in a report: one that holds itself has no end."""

_OURS = "tuner."
"""Begins the keys with which a trial tells us more than its metrics."""


@dataclass(frozen=True)
class PlainReport:
    """What is left of a report.

    Args:
        numbers: By name. A metric of a nested dictionary is named as Ray Tune names it: ``val/acc``.
        left_out: Why each of the others was left out, by name.
    """

    numbers: dict[str, int | float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def plain(report: Mapping[Any, Any], reserved: Collection[str] = (), names: Collection[str] = ()) -> PlainReport:
    """Reduce a report to its numbers, whatever it holds: nothing in it raises here.

    Args:
        report: As it was reported.
        reserved: Keys at its top that are Ray Tune's own.
        names: Metrics that an experiment names, which an older one may do with dots: ``val.acc``.
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
    """What a value is, in a few words: its type and the beginning of what it looks like."""
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if value is None:
        return "None"
    with contextlib.suppress(Exception):  # it may raise whatever is asked of it, or have a shape that is none
        if math.prod(value.shape) > _FEW:
            return f"{_a(name)} of shape {tuple(value.shape)}"
    try:
        return f"{_a(name)} ({' '.join(_BRIEF.repr(value).split())})"
    except Exception:
        return f"{_a(name)} that cannot be shown"


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


_FEW = 4
"""Elements of an array that are shown: more would take as long to write as to read."""

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 60
_BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxset = _BRIEF.maxdict = _FEW
_BRIEF.maxlevel = 2


def _flat(
    report: Mapping[Any, Any], prefix: str, made: PlainReport, reserved: Collection[str], depth: int = 1
) -> Iterator[tuple[str, Any]]:
    """Each value that is no dictionary, by its name."""
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
    """Which needs no further explanation."""


def _number(value: Any) -> int | float:
    """A value as a plain number: also of Decimal, Fraction, NumPy's scalars, and arrays and tensors of one element."""
    if isinstance(value, str | bytes | bytearray | bool) or value is None:
        raise _NoNumber
    if not isinstance(value, int | float) and hasattr(value, "item"):
        value = value.item()  # where there is more than one element, it raises
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
    said = " ".join(message_of(error).split())[:100]
    return f": {type(error).__name__}{f': {said}' if said else ''}"
