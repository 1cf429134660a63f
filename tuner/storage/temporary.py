"""Temporary files: folders that are gone when they are no longer needed, and short ones for sockets."""

import multiprocessing.util
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tuner.errors import Problem, UserError

SOCKET_BYTES = 107 if sys.platform == "linux" else 103
"""How long the path of a Unix socket may be."""

_LISTENER = "/pymp-12345678/listener-12345678"  # as `multiprocessing` names its sockets
_ROOM = 2**20  # bytes that a temporary folder has to have room for


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


def check() -> str:
    """Make sure that there is a folder for temporary files.

    Returns:
        Why they are not where the environment wants them; empty where they are.

    Raises:
        UserError: None can be written.
    """
    wanted = next((name for name in ("TMPDIR", "TEMP", "TMP") if os.environ.get(name)), "")
    try:
        there = Path(tempfile.gettempdir())
    except FileNotFoundError:
        hint = "make room in /tmp, or set TMPDIR to a folder that can be written"
        raise UserError(Problem("no folder for temporary files can be written", wanted, hint=hint)) from None
    if why := why_not(there):
        raise UserError(
            Problem(f"no temporary files can be written: {why}", wanted, hint="set TMPDIR to another folder")
        )
    if wanted and there != Path(os.environ[wanted]).absolute():
        return f"{wanted}: {why_not(Path(os.environ[wanted]))}: temporary files go to {there}"
    return ""


def short_folders() -> list[Path]:
    """Where those may go that need a short path, and that are not wanted somewhere else."""
    there = [Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path.home()]
    return [folder for folder in there if folder.is_dir()]


def why_not(folder: Path) -> str:
    """Why a file cannot be written to a folder; empty where it can."""
    try:
        if not folder.is_dir():
            return f"{folder} is not a folder" if folder.exists() else f"{folder} does not exist"
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_ROOM))
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror}"
    return ""


def shorten_sockets() -> None:
    """Have `multiprocessing` make its sockets, and those of its children, where their paths are short enough.

    Loaders of data and the user's own processes need them. Python itself does so from 3.14 on.
    """
    longest = SOCKET_BYTES - len(_LISTENER)
    there = tempfile.gettempdir()
    if len(os.fsencode(there)) <= longest:
        return
    for folder in short_folders():
        if len(os.fsencode(folder)) <= longest and not why_not(folder):
            tempfile.tempdir = str(folder)
            try:
                multiprocessing.util.get_temp_dir()  # which it keeps to, and deletes at the end
            finally:
                tempfile.tempdir = there
            return


def _ours() -> str:
    return f"tuner-{socket.gethostname()}-"  # containers may share a folder, and have processes of their own
