"""Where values lie in a file that holds them as they are, so that one can be read without its neighbours."""

import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_HEAD = 64
"""Bytes of a value by which it is looked for; then all of them are compared."""
_LENGTH = 4
"""Bytes of the number before a value in Parquet's plain encoding: the length of the value."""


@dataclass(frozen=True)
class Places:
    """The places of values in a file.

    Args:
        path: The file.
        starts: The first byte of each value, int64 (N,).
        lengths: The number of its bytes, int64 (N,); 0 for a value that is missing.
        stamp: What tells that the file has not changed: the time of its last change in nanoseconds, and its size.
    """

    path: Path
    starts: np.ndarray[Any, np.dtype[np.int64]]
    lengths: np.ndarray[Any, np.dtype[np.int64]]
    stamp: tuple[int, int]

    def read(self, index: int) -> bytes:
        """Read a value; it may be empty.

        Raises:
            OSError: The file cannot be read, or has changed.
        """
        with self.path.open("rb", buffering=0) as file:
            if _stamp(file) != self.stamp:
                raise OSError("the file has changed while it was in use")
            return os.pread(file.fileno(), int(self.lengths[index]), int(self.starts[index]))


def places_of(path: Path, values: Iterable[bytes | None], start: int, size: int) -> Places | None:
    """Find values in a section of a file, each behind its length and behind the value before it.

    Args:
        path: The file.
        values: The values; None for one that is missing.
        start: The first byte of the section.
        size: The number of its bytes.

    Returns:
        Their places, each of which has the bytes of its value; None if the file has them in another form.
    """
    starts, lengths = [], []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        position = start
        for value in values:
            if value:
                key = len(value).to_bytes(_LENGTH, "little") + value[:_HEAD]
                position = content.find(key, position, start + size) + _LENGTH
                if position < _LENGTH or content[position : position + len(value)] != value:
                    return None
            starts.append(position)
            lengths.append(len(value or b""))
            position += lengths[-1]
        return Places(path, np.array(starts, dtype=np.int64), np.array(lengths, dtype=np.int64), _stamp(file))


def _stamp(file: Any) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_mtime_ns, found.st_size
