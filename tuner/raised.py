"""What code of the user's own raises, in words that can be written down, however odd and however long they are."""

import re
import traceback

_LONGEST_LINE = 500  # characters of a reason: it stands in tables
_LONGEST_TEXT = 40_000  # of a traceback

_UNWRITABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What a terminal obeys, databases refuse, or UTF-8 does not have."""


def words_of(error: BaseException) -> str:
    """What an error says; empty where that raises in its turn."""
    try:
        return str(error)
    except Exception:
        return ""


def line_of(error: BaseException) -> str:
    """An error in one line: its type, and what it says."""
    return in_a_line(f"{type(error).__name__}: {words_of(error)}").removesuffix(":")


def in_a_line(text: str) -> str:
    """A text as one line of at most 500 characters; of a longer one its beginning."""
    line = writable(" ".join(text[: 10 * _LONGEST_LINE].split()))
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 4]} ..."


def traceback_of(error: BaseException) -> str:
    """An error's traceback, as Python prints it."""
    return shortened("".join(traceback.format_exception(error)))


def shortened(text: str) -> str:
    """A text that can be written down; of a long one its beginning and its end."""
    if len(text) > _LONGEST_TEXT:
        half = _LONGEST_TEXT // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half} characters were cut here]\n{text[-half:]}"
    return writable(text)


def writable(text: str) -> str:
    """A text with what cannot be written down everywhere, such as half a character, as Python escapes it."""
    return _UNWRITABLE.sub(lambda found: found.group().encode("unicode_escape").decode(), text)
