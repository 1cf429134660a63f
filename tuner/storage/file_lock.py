"""Locks between processes of one machine. They end with the process that holds them, however it ends."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def exclusive(path: Path, *, where_possible: bool = False) -> Iterator[None]:
    """Hold the lock of a file, which is made, or of a folder, once nobody else does.

    Args:
        path: The file, or a folder that is there.
        where_possible: Not every shared folder can be locked: go on without, there.
    """
    descriptor = os.open(path, os.O_RDONLY) if path.is_dir() else os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with contextlib.suppress(OSError) if where_possible else contextlib.nullcontext():
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def try_lock(file: IO[str]) -> bool:
    """Take the lock of an open file for as long as it is open. Returns whether it was free."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
