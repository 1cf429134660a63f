"""The session folders of Rays that tuner starts on this host: where Ray creates them, and when they are deleted.

Ray leaves a session folder at each start. tuner marks its own; it deletes one when its job has ended or, if the driver
was killed, when a later job starts. It never touches the folders of other programs or users.
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
"""The file in a session folder that identifies its driver."""

_LATEST = "session_latest"  # Ray's link to the newest session folder
_NAME = "session_2026-01-01_00-00-00_000000_"  # as long as every name, without the driver's process id
_SOCKET = "sockets/plasma_store"  # the longest path of a socket in a session folder


def root() -> tuple[Path, str]:
    """Return the folder in which Ray creates session folders: Ray's default if it is writable and short enough.

    Returns:
        The folder, and why it is not Ray's default; empty if it is.

    Raises:
        UserError: No folder is short enough and writable.
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
    """Mark the session folder that Ray creates while the body runs, also if the body raises."""
    pattern = f"session_*_{os.getpid()}"
    existing = set(root.glob(pattern))
    try:
        yield
    finally:
        for created in set(root.glob(pattern)) - existing:
            with contextlib.suppress(OSError):  # such as a full disk: the unmarked folder is never deleted
                (created / MARK).write_text(json.dumps(_own_mark()), encoding="utf-8")


def keep(session: Path) -> Path:
    """Unmark a session folder, so that it is never deleted; return the folder of its logs."""
    (session / MARK).unlink(missing_ok=True)
    return session / "logs"


def remove(session: Path) -> str:
    """Delete the session folder of a Ray that this process started and that has ended; keep any other.

    Returns:
        The folder of files that trials wrote to the folders that Ray gives them, kept; empty if there is none.
    """
    mark = _mark(session)
    return _delete(session) if mark and mark["pid"] == os.getpid() else ""


def clear_up(root: Path) -> None:
    """Delete the marked session folders of killed drivers, unless a process still uses them."""
    for session in root.glob("session_*"):
        mark = _mark(session)
        if mark and not _is_alive(mark) and not _is_used(session):
            with contextlib.suppress(OSError):  # another job may delete it at the same time
                _delete(session)


def _own_mark() -> dict[str, Any]:
    """Return the mark of this process: its host and user, its process id, and when it started."""
    return _scope() | {"pid": os.getpid(), "started": psutil.Process().create_time()}


def _scope() -> dict[str, Any]:
    """Return the scope in which a process id is valid: containers may share the folder, but not the processes."""
    namespace = str(Path("/proc/self/ns/pid").readlink()) if sys.platform == "linux" else ""
    return {"host": socket.gethostname(), "processes": namespace, "user": os.getuid()}


def _mark(session: Path) -> Mapping[str, Any] | None:
    """Return a session folder's mark if it is of this host and user; None otherwise."""
    try:
        if session.is_symlink() or session.stat().st_uid != os.getuid():
            return None
        mark = json.loads((session / MARK).read_text(encoding="utf-8"))
        is_ours = isinstance(mark, dict) and {name: mark.get(name) for name in _scope()} == _scope()
        return _scope() | {"pid": int(mark["pid"]), "started": float(mark["started"])} if is_ours else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _is_alive(mark: Mapping[str, Any]) -> bool:
    """Whether a driver still runs. Its start is compared with a tolerance of 1 s, since the clock may have been set."""
    try:
        return bool(psutil.Process(mark["pid"]).create_time() <= mark["started"] + 1)
    except psutil.NoSuchProcess:
        return False


def _is_used(session: Path) -> bool:
    """Whether a process has the session in its arguments, working directory or open files, as all of Ray's do."""
    return any(_uses(process, session.name) for process in psutil.process_iter())


def _uses(process: psutil.Process, session: str) -> bool:
    try:
        if any(session in argument for argument in process.cmdline()):
            return True
        if process.uids().real != os.getuid():
            return False
        try:
            return session in process.cwd() or any(session in file.path for file in process.open_files())
        except psutil.AccessDenied:  # unknown, such as of a container's first process
            return process.name().startswith(("ray", "gcs", "python"))
    except psutil.Error:  # it has ended, or belongs to another user
        return False


def _delete(session: Path) -> str:
    """Delete a session folder, its mark last, so that a later start completes an interrupted deletion."""
    trial_files = _trial_files(session)
    for entry in session.iterdir():
        if entry.name == MARK or (trial_files and entry.name == "artifacts"):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                entry.unlink()
    if trial_files:
        keep(session)
        return trial_files
    if [entry.name for entry in session.iterdir()] == [MARK]:
        (session / MARK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            session.rmdir()
        latest = session.parent / _LATEST
        with contextlib.suppress(OSError):
            if latest.readlink() == session and not session.exists():
                latest.unlink()
    return ""


def _trial_files(session: Path) -> str:
    """Return the folder of files that trials wrote to the folders that Ray gives them; empty if there are none."""
    for job in session.glob("artifacts/*/*"):
        folders = [*job.glob("working_dirs/*/"), *job.glob("driver_artifacts/*/")]  # of a worker's first trial
        if any(path.is_symlink() or not path.is_dir() for folder in folders for path in folder.rglob("*")):
            return str(job)
    return ""
