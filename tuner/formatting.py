"""Formatting for people: scores, sizes, durations, dates, and lists of words."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

_DECIMALS = 4  # of an ordinary score, such as an accuracy
_MIN_DIGITS = 3  # significant digits
_MAX_DIGITS = 7  # significant digits: a float32 has no more
_SMALL, _LARGE = 1e-4, 1e7  # outside of this range numbers are written with an exponent
_LARGE_INTEGER = 1e15  # whole numbers are written out below this


def score_format(values: Iterable[float | None]) -> Callable[[float | None], str]:
    """Choose a format for scores that are shown together: with as few digits as keep different scores different.

    Args:
        values: All scores that are shown, such as a column of a table; None and values that are not finite are ignored.

    Returns:
        A function that formats one of the scores. It formats integers without decimals and None as an empty text.
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    # A column of counts: a lone 1.0 is an accuracy.
    is_whole = bool(known) and max(map(abs, known)) >= 10 and all(float(value).is_integer() for value in known)
    powers = {_rounded(value) for value in known if _is_power(value)}
    points = {_rounded(value) for value in known if not _is_power(value)}
    digits = next((n for n in range(_MIN_DIGITS, _MAX_DIGITS) if _stay_distinct(powers, f".{n - 1}e")), _MAX_DIGITS)
    least = 0 if is_whole else _decimals(points)
    decimals = next((n for n in range(least, least + _MAX_DIGITS) if _stay_distinct(points, f".{n}f")), least)

    def write(value: float | None) -> str:
        if value is None:
            return ""
        if not math.isfinite(value):
            return f"{value:g}"
        if value == 0:
            value = abs(value)  # -0.0 is shown as 0
        if _is_power(value):
            return f"{value:.{digits - 1}e}"
        return f"{value:,}" if isinstance(value, int) else f"{value:,.{decimals}f}"

    return write


def score(value: float | None) -> str:
    """Format a single score."""
    return score_format([value])(value)


def counted(count: int, one: str, many: str = "") -> str:
    """Format a number with its noun, such as ``1 class`` or ``3,000 classes``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def some(texts: Sequence[str], *, separator: str = ", ", count: int = 5) -> str:
    """The first of some texts, and how many more there are."""
    shown = list(texts[:count])
    if len(texts) > count:
        shown.append(f"and {len(texts) - count:,} more")
    return separator.join(shown)


def listed(texts: Iterable[str], last: str = "and") -> str:
    """The texts as a sentence lists them: ``masks, boxes and instances``.

    Args:
        texts: The texts.
        last: The word before the last one.
    """
    *others, end = list(texts) or [""]
    return f"{', '.join(others)} {last} {end}" if others else end


def _is_power(value: float) -> bool:
    """Whether a number is written with an exponent."""
    size = abs(value)
    return 0 < size < _SMALL or size >= (_LARGE_INTEGER if float(value).is_integer() else _LARGE)


def _rounded(value: float) -> float:
    return float(f"{value:.{_MAX_DIGITS}g}")


def _decimals(values: Iterable[float]) -> int:
    """Decimals: four; more if the smallest value would show fewer than three digits, fewer for values above 1000."""
    sizes = [abs(value) for value in values if value]
    if not sizes:
        return _DECIMALS
    smallest = math.floor(math.log10(min(sizes)))
    usual = _DECIMALS if max(sizes) < 1000 else max(0, _DECIMALS - 1 - max(smallest, 0))
    return max(usual, _MIN_DIGITS - 1 - smallest)


def _stay_distinct(values: set[float], spec: str) -> bool:
    return len({format(value, spec) for value in values}) == len(values)


def byte_size(size: float) -> str:
    """Format a number of bytes: ``3.2 MB``."""
    units = ["bytes", "KB", "MB", "GB", "TB", "PB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"


def duration(seconds: float) -> str:
    """Format a number of seconds: ``42s``, ``3m 05s``, ``2h 10m``."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded}s"
    if rounded < 3600:
        return f"{rounded // 60}m {rounded % 60:02d}s"
    return f"{rounded // 3600}h {rounded % 3600 // 60:02d}m"


def date_and_time(seconds: float) -> str:
    """Format seconds since 1970 as local date and time: ``2026-11-23 14:20``."""
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"


def parse_duration(value: Any) -> Any:
    """Convert ``90``, ``90s``, ``15m``, ``2h``, ``1d`` or ``1h30m`` to seconds; values other than text are returned."""
    if not isinstance(value, str):
        return value
    amounts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", value)
    if not amounts or "".join(number + unit for number, unit in amounts) != value.replace(" ", ""):
        raise ValueError(f"{value!r} is not a duration; write 90s, 15m, 2h or 1h30m")
    return sum(float(number) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit] for number, unit in amounts)
