"""Standard output and standard error: what cannot be written there is no reason to stop."""

import codecs
import contextlib
import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any


class Lenient(FileIO):
    """A file whose reader may go away, and whose disk may be full: what cannot be written then is left out."""

    def write(self, data: Any) -> int:
        """Write, or leave it."""
        with contextlib.suppress(OSError):
            if (written := super().write(data)) is not None:  # None: it is full, and would have us wait
                return written
        return memoryview(data).nbytes


def prepare() -> None:
    """Make standard output and error such that no character and no missing stream is an error.

    A character that the encoding lacks (``PYTHONIOENCODING=ascii``) becomes ``?``. A stream that is closed (``>&-``)
    goes nowhere: else the next file that is opened would be taken for it.
    """
    while (free := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(free, True)
    os.close(free)
    if sys.stdout is None:
        sys.stdout = _text(FileIO(1, "w", closefd=False), "utf-8")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    # What is said there is said beside something else, which goes on.
    sys.stderr = _text(Lenient(2, "w", closefd=False), getattr(sys.stderr, "encoding", "utf-8"))


def outlive() -> None:
    """Go on whatever becomes of standard output: a reader that has gone, a terminal that was closed, a full disk.

    For commands that do something; those that only print end where nobody reads.
    """
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    if isinstance(sys.stdout, TextIOWrapper) and _number(sys.stdout) == 1:
        sys.stdout = _text(Lenient(1, "w", closefd=False), sys.stdout.encoding)


def _number(stream: TextIOWrapper) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return stream.fileno()
    return None


def _text(file: FileIO, encoding: str) -> TextIOWrapper:
    """A file for text, line by line."""
    name = codecs.lookup(encoding or "utf-8").name
    return TextIOWrapper(BufferedWriter(file), encoding=name, errors="replace", line_buffering=True)
