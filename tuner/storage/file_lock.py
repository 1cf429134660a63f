"""File locks between the processes of one node. A lock is released when the process that holds it ends."""

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def exclusive(path: Path, *, where_possible: bool = False) -> Iterator[bool]:
    """Wait for the lock of a file or folder, and hold it while the body runs. Yields whether it is held.

    Args:
        path: A file, which is created if it does not exist, or an existing folder.
        where_possible: Whether to run the body without a lock if the file system does not support locks.
    """
    descriptor = os.open(path, os.O_RDONLY) if path.is_dir() else os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    is_held = False
    try:
        with contextlib.suppress(OSError) if where_possible else contextlib.nullcontext():
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            is_held = True
        yield is_held
    finally:
        os.close(descriptor)


def stand_in(kind: str, address: str) -> Path:
    """The file of this node and user that is locked for something that knows no locks, such as an object store.

    Args:
        kind: What it is, as part of a file's name.
        address: What tells it from others of its kind.
    """
    name = hashlib.sha256(address.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"tuner-{kind}-{os.getuid()}-{name}")


def try_lock(file: IO[str]) -> bool:
    """Lock an open file until it is closed, without waiting. Returns False if another process holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
