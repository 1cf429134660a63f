"""Where commands print: a terminal, a log, a pipe. Quick to import."""

import os
import sys
from io import BufferedWriter, TextIOWrapper

from rich.console import Console

from tuner.report.output import Lenient

_ENDLESS = 100_000  # characters of a line in a file: nobody's window cuts it


class Followed(TextIOWrapper):
    """A log that is shown on a terminal somewhere else, as that of a job that was submitted to a cluster.

    Who reads a log line by line takes a carriage return for the end of one. There is another way to the first column.
    """

    def write(self, text: str) -> int:
        return super().write(text.replace("\r", "\x1b[G"))


def terminal() -> Console:
    """Standard output; where it is a log that is to be treated as a terminal (``TTY_COMPATIBLE``), made for that.

    In a file or a pipe nothing is wrapped or cut, unless ``COLUMNS`` says how wide it is.
    """
    console = Console()
    if not console.is_terminal:
        return console if os.environ.get("COLUMNS", "").isdigit() else Console(width=_ENDLESS)
    if sys.stdout.isatty():
        return console
    return Console(file=Followed(BufferedWriter(Lenient(1, "w", closefd=False)), encoding="utf-8"))
