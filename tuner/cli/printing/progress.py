"""A line on standard error that says how far a command is."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

_LOG_INTERVAL = 10.0
"""Seconds between two lines of progress in a log."""


class ProgressLine:
    """Shows on standard error what is done: on a terminal in a line that changes, in a log by a line now and then.

    Args:
        text: What is done.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._console = Console(stderr=True)
        self._shown = time.perf_counter()
        self._status: Status | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status(Text(self._text))
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, text: str) -> None:
        """Show a text: on a terminal at once."""
        now = time.perf_counter()
        if self._status is not None:
            self._status.update(Text(text))
        elif now - self._shown > _LOG_INTERVAL:
            self._shown = now
            self._console.print(Text(text), soft_wrap=True)
