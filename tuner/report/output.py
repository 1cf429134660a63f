"""Standard output and standard error that raise nothing when a write fails."""

import codecs
import contextlib
import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any


class Lenient(FileIO):
    """A file that drops what it cannot write, as where a pipe's reader has ended or a disk is full."""

    def write(self, data: Any) -> int:
        """Write `data`, or drop it."""
        with contextlib.suppress(OSError):
            if (written := super().write(data)) is not None:  # None: the pipe is full, and the call would block
                return written
        return memoryview(data).nbytes


def prepare() -> None:
    """Make standard output and error accept every character, and open them where they are closed.

    A character that the encoding lacks (``PYTHONIOENCODING=ascii``) becomes ``?``. A closed stream (``>&-``) becomes
    ``/dev/null``: else the next file that is opened would get its descriptor.
    """
    while (free := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(free, True)
    os.close(free)
    if sys.stdout is None:
        sys.stdout = _text(FileIO(1, "w", closefd=False), "utf-8")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    # Messages on standard error accompany work that continues without them.
    sys.stderr = _text(Lenient(2, "w", closefd=False), getattr(sys.stderr, "encoding", "utf-8"))


def ignore_closed_stdout() -> None:
    """Ignore failed writes to standard output: a reader that has ended, a closed terminal, a full disk.

    For commands that do something; those that only print end when their reader does.
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
    """Return a line-buffered text stream that writes to `file`."""
    name = codecs.lookup(encoding or "utf-8").name
    return TextIOWrapper(BufferedWriter(file), encoding=name, errors="replace", line_buffering=True)
