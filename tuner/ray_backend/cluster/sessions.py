"""Session folders of the Rays that are started on this machine: where they lie, which are ours, and when they go.

Ray leaves one for each of its starts. Ours are marked; one is deleted when its job has ended, or by a later start where
its driver was killed. Others' are never touched.
"""

import contextlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from tuner.errors import Problem, UserError
from tuner.storage import temporary

MARK = "tuner.json"
"""The file in a session folder that says whose it is."""

_LATEST = "session_latest"  # Ray's link to the newest
_NAME = "session_2026-01-01_00-00-00_000000_"  # as long as each, without the driver's process id
_SOCKET = "sockets/plasma_store"  # the longest path of a socket in it


def root() -> tuple[Path, str]:
    """The folder that Ray makes its session folder in: its own choice, unless that cannot be written or is too long.

    Returns:
        The folder, and why it is not Ray's own choice; empty where it is.

    Raises:
        UserError: There is none that is short enough and can be written.
    """
    longest = temporary.SOCKET_BYTES - len(f"/{_NAME}{os.getpid()}/{_SOCKET}")
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "")
    first = Path(os.environ[variable] if variable else "/tmp").absolute()
    reasons = list[str]()
    for base in dict.fromkeys((first, *temporary.short_folders())):
        for folder in (base / "ray", base / f"ray-{os.getuid()}"):  # the first may be another user's
            size = len(os.fsencode(folder))
            if size > longest:
                why = f"{folder} has {size} bytes, and the paths of Ray's sockets leave {longest}"
            else:
                why = temporary.write_error(base if temporary.write_error(base) or not folder.exists() else folder)
            if not why and not reasons:
                return folder, ""
            if not why:
                return folder, ": ".join(filter(None, (variable, reasons[0], f"Ray's files go to {folder}")))
            reasons.append(why)
    hint = f"set RAY_TMPDIR to a folder that can be written, of at most {longest - len('/ray')} bytes"
    raise UserError(Problem(f"no folder for Ray's files: {'; '.join(reasons)}", variable, hint=hint))


@contextlib.contextmanager
def marking(root: Path) -> Iterator[None]:
    """Mark as ours the session folder that is made here meanwhile, also where that breaks off."""
    pattern = f"session_*_{os.getpid()}"
    before = set(root.glob(pattern))
    try:
        yield
    finally:
        for made in set(root.glob(pattern)) - before:
            with contextlib.suppress(OSError):  # a full disk: it stays, as any of Ray's does
                (made / MARK).write_text(json.dumps(_me()), encoding="utf-8")


def keep(session: Path) -> Path:
    """Have one of ours stay for good. Returns the folder of its logs."""
    (session / MARK).unlink(missing_ok=True)
    return session / "logs"


def remove(session: Path) -> str:
    """Delete a session folder of this process, whose Ray has ended. One that is not ours stays.

    Returns:
        The folder of files that trials wrote to those that Ray gives them, which stay; empty where there are none.
    """
    mark = _mark(session)
    return _delete(session) if mark and mark["pid"] == os.getpid() else ""


def clear_up(root: Path) -> None:
    """Delete the session folders here whose drivers were killed: ours alone, and none that any process still uses."""
    for session in root.glob("session_*"):
        mark = _mark(session)
        if mark and not _is_alive(mark) and not _is_used(session):
            with contextlib.suppress(OSError):  # another job does so at the same time
                _delete(session)


def _me() -> dict[str, Any]:
    """What marks a session of this process: its machine and user, and how to see whether it lives."""
    return _home() | {"pid": os.getpid(), "started": psutil.Process().create_time()}


def _home() -> dict[str, Any]:
    """Who can tell whether a process lives: containers may share the folder, and have processes of their own."""
    space = str(Path("/proc/self/ns/pid").readlink()) if sys.platform == "linux" else ""
    return {"host": socket.gethostname(), "processes": space, "user": os.getuid()}


def _mark(session: Path) -> Mapping[str, Any] | None:
    """What the mark of a session folder says, where it is of this machine and user; None for others'."""
    try:
        if session.is_symlink() or session.stat().st_uid != os.getuid():
            return None
        mark = json.loads((session / MARK).read_text(encoding="utf-8"))
        is_ours = isinstance(mark, dict) and {name: mark.get(name) for name in _home()} == _home()
        return _home() | {"pid": int(mark["pid"]), "started": float(mark["started"])} if is_ours else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _is_alive(mark: Mapping[str, Any]) -> bool:
    """Whether a driver lives. When it started is known to a second or so: the clock may have been set since."""
    try:
        return bool(psutil.Process(mark["pid"]).create_time() <= mark["started"] + 1)
    except psutil.NoSuchProcess:
        return False


def _is_used(session: Path) -> bool:
    """Whether any process names a session, works in it, or has a file of it open, as Ray's own all do."""
    return any(_uses(process, session.name) for process in psutil.process_iter())


def _uses(process: psutil.Process, session: str) -> bool:
    try:
        if any(session in argument for argument in process.cmdline()):
            return True
        if process.uids().real != os.getuid():
            return False
        try:
            return session in process.cwd() or any(session in file.path for file in process.open_files())
        except psutil.AccessDenied:  # it cannot be told: such as a container's first process
            return process.name().startswith(("ray", "gcs", "python"))
    except psutil.Error:  # it has ended, or is somebody else's
        return False


def _delete(session: Path) -> str:
    """Delete a session folder, its mark last: what is interrupted is done by a later start."""
    written = _written(session)
    for entry in session.iterdir():
        if entry.name == MARK or (written and entry.name == "artifacts"):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                entry.unlink()
    if written:
        keep(session)
        return written
    if [entry.name for entry in session.iterdir()] == [MARK]:
        (session / MARK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            session.rmdir()
        latest = session.parent / _LATEST
        with contextlib.suppress(OSError):
            if latest.readlink() == session and not session.exists():
                latest.unlink()
    return ""


def _written(session: Path) -> str:
    """Where trials of a session left files in the folders that Ray gives them; empty where none did."""
    for job in session.glob("artifacts/*/*"):
        folders = [*job.glob("working_dirs/*/"), *job.glob("driver_artifacts/*/")]  # of a worker's first trial
        if any(path.is_symlink() or not path.is_dir() for folder in folders for path in folder.rglob("*")):
            return str(job)
    return ""
