"""Folders that are gone when they are no longer needed, also those of processes that were killed."""

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder for files that nobody needs afterwards."""
    with tempfile.TemporaryDirectory(prefix=f"{_ours()}{os.getpid()}-") as name:
        yield Path(name)


def clear_up() -> None:
    """Delete the folders of processes of this machine that have left some."""
    for left in Path(tempfile.gettempdir()).glob(f"{_ours()}*"):
        pid = re.match(r"\d+(?=-)", left.name.removeprefix(_ours()))
        if pid and not psutil.pid_exists(int(pid[0])):
            shutil.rmtree(left, ignore_errors=True)


def _ours() -> str:
    return f"tuner-{socket.gethostname()}-"  # containers may share a folder, and have processes of their own
