"""Numbers as people read them: scores with as many digits as tell them apart."""

import math
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

_DECIMALS = 4  # of an ordinary score, such as an accuracy
_SIGNIFICANT = 3  # digits that a score shows at least
_TELLING = 7  # significant digits that are told apart: a float32 has no more
_SMALL, _LARGE = 1e-4, 1e7  # beyond these, a power of ten is easier to read than zeros
_WHOLE = 1e15  # whole numbers are written out below this


def score_format(values: Iterable[float | None]) -> Callable[[float | None], str]:
    """How to write scores that stand beside each other: with as many digits as tell those that differ apart.

    Args:
        values: All that are written so, such as a table's column; None and what is not finite decide nothing.

    Returns:
        Writes one of them. Whole numbers, such as parameters, as they are; None as an empty text.
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    # A column of counts: a lone 1.0 is an accuracy.
    is_whole = bool(known) and max(map(abs, known)) >= 10 and all(float(value).is_integer() for value in known)
    powers = {_rounded(value) for value in known if _is_power(value)}
    points = {_rounded(value) for value in known if not _is_power(value)}
    digits = next((n for n in range(_SIGNIFICANT, _TELLING) if _are_apart(powers, f".{n - 1}e")), _TELLING)
    least = 0 if is_whole else _decimals(points)
    decimals = next((n for n in range(least, least + _TELLING) if _are_apart(points, f".{n}f")), least)

    def write(value: float | None) -> str:
        if value is None:
            return ""
        if not math.isfinite(value):
            return f"{value:g}"
        if value == 0:
            value = abs(value)  # -0.0 is no score below 0
        if _is_power(value):
            return f"{value:.{digits - 1}e}"
        return f"{value:,}" if isinstance(value, int) else f"{value:,.{decimals}f}"

    return write


def score(value: float | None) -> str:
    """A score that stands alone."""
    return score_format([value])(value)


def _is_power(value: float) -> bool:
    """Whether a number is written with a power of ten."""
    size = abs(value)
    return 0 < size < _SMALL or size >= (_WHOLE if float(value).is_integer() else _LARGE)


def _rounded(value: float) -> float:
    return float(f"{value:.{_TELLING}g}")


def _decimals(values: Iterable[float]) -> int:
    """Digits behind the point: four, and more where a small one shows too little of itself, fewer for large ones."""
    sizes = [abs(value) for value in values if value]
    if not sizes:
        return _DECIMALS
    smallest = math.floor(math.log10(min(sizes)))
    usual = _DECIMALS if max(sizes) < 1000 else max(0, _DECIMALS - 1 - max(smallest, 0))
    return max(usual, _SIGNIFICANT - 1 - smallest)


def _are_apart(values: set[float], form: str) -> bool:
    return len({format(value, form) for value in values}) == len(values)


def shown(size: float) -> str:
    """A number of bytes as it is read: ``3.2 MB``."""
    units = ["bytes", "KB", "MB", "GB", "TB", "PB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"


def duration(seconds: float) -> str:
    """Seconds as people say them: ``42s``, ``3m 05s``, ``2h 10m``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def moment(seconds: float) -> str:
    """Seconds since 1970 as date and time where one is: ``2026-11-23 14:20``."""
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"


def seconds_of(value: Any) -> Any:
    """``90``, ``90s``, ``15m``, ``2h``, ``1d`` or ``1h30m`` in seconds."""
    if not isinstance(value, str):
        return value
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", value)
    if not parts or "".join(number + unit for number, unit in parts) != value.replace(" ", ""):
        raise ValueError(f"{value!r} is not a time; write 90s, 15m, 2h or 1h30m")
    return sum(float(number) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit] for number, unit in parts)
