"""The console that commands print to: a terminal, a log, a pipe. Quick to import."""

import os
import sys
from io import BufferedWriter, TextIOWrapper

from rich.console import Console

from tuner.report.output import Lenient

_UNLIMITED = 100_000  # characters of a line in a file or a pipe, where no terminal wraps it


class FollowedLog(TextIOWrapper):
    """A log that a terminal elsewhere shows, as that of a job that was submitted to a cluster.

    A reader that splits the log into lines takes a carriage return for the end of a line, so it writes the escape
    sequence for the first column instead.
    """

    def write(self, text: str) -> int:
        return super().write(text.replace("\r", "\x1b[G"))


def terminal() -> Console:
    """Return a console for standard output, a `FollowedLog` where that is a log to be treated as a terminal
    (``TTY_COMPATIBLE``).

    In a file or a pipe it wraps and cuts nothing, unless ``COLUMNS`` has the width.
    """
    console = Console()
    if not console.is_terminal:
        return console if os.environ.get("COLUMNS", "").isdigit() else Console(width=_UNLIMITED)
    if sys.stdout.isatty():
        return console
    return Console(file=FollowedLog(BufferedWriter(Lenient(1, "w", closefd=False)), encoding="utf-8"))
