"""Standard output by thread: what a trial prints goes to its proxy, and all else to where it always goes."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import local
from typing import TextIO


class PrintedByThread(io.TextIOBase):
    """A stream whose text goes to whoever the writing thread has named.

    Args:
        otherwise: The stream of threads that have named nobody.
    """

    _of = local()

    def __init__(self, otherwise: TextIO) -> None:
        self._otherwise = otherwise

    @classmethod
    @contextmanager
    def to(cls, take: Callable[[str], None]) -> Iterator[None]:
        """In the body, what this thread prints is passed to a function."""
        before, cls._of.take = getattr(cls._of, "take", None), take
        try:
            yield
        finally:
            cls._of.take = before

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        take = getattr(self._of, "take", None)
        if take is None:
            return self._otherwise.write(text)
        take(text)
        return len(text)

    def flush(self) -> None:
        self._otherwise.flush()

    def fileno(self) -> int:
        return self._otherwise.fileno()
