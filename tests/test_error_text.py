"""Errors of code of the user's own, as they are written down."""

import pytest

from tuner.error_text import one_line, summary_of, traceback_of, truncated


class Unspeakable(Exception):
    """Whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("bad \udcff name\0 \x1b[31mred"), r"ValueError: bad \udcff name\x00 \x1b[31mred"),
        (ValueError("first\nsecond\r\n\n third"), "ValueError: first second third"),
        (StopIteration(), "StopIteration"),
        (Unspeakable(), "Unspeakable"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (ValueError("Größe 日本 🎉"), "ValueError: Größe 日本 🎉"),
    ],
)
def test_an_error_is_a_line_that_can_be_written_down(error: BaseException, line: str) -> None:
    assert summary_of(error) == line
    assert type(error).__name__ in traceback_of(error)


def test_a_long_one_is_cut() -> None:
    error = ValueError("x" * 3_000_000)
    assert len(summary_of(error)) == 500
    assert summary_of(error).startswith("ValueError: xxx") and summary_of(error).endswith("xxx ...")
    text = traceback_of(error)
    assert len(text) < 50_000 and "characters were cut here" in text
    assert one_line("x" * 500) == "x" * 500 and truncated("x\n\ty") == "x\n\ty"
