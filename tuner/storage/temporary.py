"""Temporary folders, and folders whose paths are short enough for sockets."""

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
"""Largest length of the path of a Unix socket, in bytes."""

_LISTENER = "/pymp-12345678/listener-12345678"  # as `multiprocessing` names its sockets
_FREE_BYTES = 2**20  # that a temporary folder must have


@contextmanager
def folder() -> Iterator[Path]:
    """Create an empty temporary folder, and delete it after the body."""
    with tempfile.TemporaryDirectory(prefix=f"{_prefix()}{os.getpid()}-") as name:
        yield Path(name)


def clear_up() -> None:
    """Delete the temporary folders that processes of this node left when they were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{_prefix()}*"):
        pid = re.match(r"\d+(?=-)", path.name.removeprefix(_prefix()))
        if pid and not psutil.pid_exists(int(pid[0])):
            shutil.rmtree(path, ignore_errors=True)


def check() -> str:
    """Check that temporary files can be written.

    Returns:
        Why they are not written to the folder that the environment names; empty if they are.

    Raises:
        UserError: They cannot be written to any folder.
    """
    variable = next((name for name in ("TMPDIR", "TEMP", "TMP") if os.environ.get(name)), "")
    try:
        used = Path(tempfile.gettempdir())
    except FileNotFoundError:
        hint = "make room in /tmp, or set TMPDIR to a folder that can be written"
        raise UserError(Problem("no folder for temporary files can be written", variable, hint=hint)) from None
    if why := write_error(used):
        raise UserError(
            Problem(f"no temporary files can be written: {why}", variable, hint="set TMPDIR to another folder")
        )
    if variable and used != Path(os.environ[variable]).absolute():
        return f"{variable}: {write_error(Path(os.environ[variable]))}: temporary files go to {used}"
    return ""


def short_folders() -> list[Path]:
    """Existing folders with short paths in which temporary files may be written."""
    candidates = [Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path.home()]
    return [folder for folder in candidates if folder.is_dir()]


def write_error(folder: Path) -> str:
    """Why a file cannot be written to a folder; empty if it can."""
    try:
        if not folder.is_dir():
            return f"{folder} is not a folder" if folder.exists() else f"{folder} does not exist"
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_FREE_BYTES))
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror}"
    return ""


def shorten_sockets() -> None:
    """Make `multiprocessing` create the sockets of this process and its children in a folder with a short path.

    DataLoader workers and processes of the user need such sockets. Python does this itself since 3.14.
    """
    longest = SOCKET_BYTES - len(_LISTENER)
    current = tempfile.gettempdir()
    if len(os.fsencode(current)) <= longest:
        return
    for folder in short_folders():
        if len(os.fsencode(folder)) <= longest and not write_error(folder):
            tempfile.tempdir = str(folder)
            try:
                multiprocessing.util.get_temp_dir()  # created here once; deleted when the process ends
            finally:
                tempfile.tempdir = current
            return


def _prefix() -> str:
    return f"tuner-{socket.gethostname()}-"  # process ids differ between containers that share a folder
