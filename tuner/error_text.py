"""The text of exceptions, bounded in length and free of characters that terminals or databases cannot handle."""

import re
import traceback

_LONGEST_LINE = 500  # characters; the line is shown in tables
_LONGEST_TEXT = 40_000  # characters of a traceback

_UNWRITABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and surrogates, which UTF-8 cannot encode."""


def message_of(error: BaseException) -> str:
    """The message of an exception; empty if its ``__str__`` raises."""
    try:
        return str(error)
    except Exception:
        return ""


def summary_of(error: BaseException) -> str:
    """The type and the message of an exception, in one line."""
    return one_line(f"{type(error).__name__}: {message_of(error)}").removesuffix(":")


def one_line(text: str) -> str:
    """Join the lines of a text and cut it after 500 characters."""
    line = escaped(" ".join(text[: 10 * _LONGEST_LINE].split()))
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 4]} ..."


def traceback_of(error: BaseException) -> str:
    """The traceback of an exception, as Python prints it, truncated."""
    return truncated("".join(traceback.format_exception(error)))


def truncated(text: str) -> str:
    """Escape a text and cut out the middle if it has more than 40,000 characters."""
    if len(text) > _LONGEST_TEXT:
        half = _LONGEST_TEXT // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half} characters were cut here]\n{text[-half:]}"
    return escaped(text)


def escaped(text: str) -> str:
    """Replace control characters and lone surrogates by Python's escape sequences."""
    return _UNWRITABLE.sub(lambda found: found.group().encode("unicode_escape").decode(), text)
