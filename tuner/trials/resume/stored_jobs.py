"""The jobs of an experiment in a storage, from their journals.

A folder's name identifies no job: it may have been renamed, or be a copy of another job's. A job has the id that its
journal gives it, and jobs are ordered by the times at which their journals began, in seconds since 1970.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuner.errors import Problem, UserError, allowed
from tuner.formatting import listed
from tuner.storage.filesystem import below, files_at, name_of, read_parts
from tuner.storage.uris import sqlite_file

JOURNAL = "journal.jsonl"
"""The name of a journal in its job's folder."""

_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
_CHUNK = 1 << 16  # bytes of a journal that are read at once, until its first line is complete


@dataclass(frozen=True)
class StoredJob:
    """A job in a storage.

    Args:
        folder: The name of its folder.
        id: The job's id, from its journal.
        began: When it began, in seconds since 1970.
        run: The id of its run in MLflow; empty if the journal has none.
    """

    folder: str
    id: str
    began: float
    run: str
    store: str = ""
    """MLflow's store, by an absolute URI; empty in an older journal."""
    copies: tuple[str, ...] = ()
    """The names of other folders with the same job."""
    is_original: bool = True
    """Whether the folder is named by the job's id, or there are no copies."""


def stored_jobs(storage: str, name: str) -> list[StoredJob]:
    """Return the jobs of an experiment, oldest first.

    Args:
        storage: The storage, a folder or a URI.
        name: The experiment's name.
    """
    from pyarrow.fs import FileSelector, FileType

    folder = below(storage, name)
    files, path = files_at(folder)
    found = files.get_file_info(FileSelector(path, recursive=False, allow_not_found=True))
    names = [info.base_name for info in found if info.type == FileType.Directory]
    jobs = [job for job in (_read(below(folder, each), whole=False) for each in names) if job is not None]
    runs = [job.run for job in jobs]
    # Copies have the same first line. A copy that was adopted has a new id in a later line.
    jobs = [_read(below(folder, job.folder), whole=True) or job if runs.count(job.run) > 1 else job for job in jobs]
    return sorted((_among(job, jobs) for job in jobs), key=lambda job: (job.began, job.folder))


def find(storage: str, name: str, wanted: str | None, flag: str = "--resume") -> StoredJob:
    """Return a job of an experiment.

    Args:
        storage: The storage, a folder or a URI.
        name: The experiment's name.
        wanted: The job's id or the name of its folder; None for the original that began last.
        flag: The user's option, for errors.

    Raises:
        UserError: There is no such job, or several folders hold it.
    """
    jobs, place = stored_jobs(storage, name), below(storage, name)
    if not jobs:
        hint = "give the job's storage with storage=...; without --resume and --extend a new job begins"
        raise UserError(Problem(f"there is no job of {name!r}", flag, place, hint))
    if wanted is not None:
        jobs = [_in_full(place, job) for job in jobs]
        exact = [job for job in jobs if job.folder == wanted] or [job for job in jobs if job.id == wanted]
        if len(exact) == 1:
            return exact[0]
        message = f"several folders hold job {wanted}" if exact else f"there is no job {wanted!r} of {name!r}"
        raise UserError(Problem(message, "--job", place, allowed(wanted, [job.folder for job in exact or jobs])))
    last = max(jobs, key=lambda job: (job.began, job.is_original))
    if not last.is_original:
        message = f"{listed([last.folder, *last.copies])} hold the same job, and none is named {last.id}"
        hint = f"choose the one to continue as a new job: --job {last.folder} --adopt"
        raise UserError(Problem(message, flag, place, hint))
    return _in_full(place, last)


def _in_full(experiment: str, job: StoredJob) -> StoredJob:
    """Read a job from its whole journal: one that was adopted has another id there than in its first line."""
    now = _read(below(experiment, job.folder), whole=True) or job
    return replace(job, id=now.id, run=now.run, store=now.store)


def shares_record(folder: str, other: str, job: str, store: str) -> bool:
    """Return whether another folder holds the same job as `folder` and writes to the same runs in MLflow.

    Args:
        folder: A job's folder, or its URI.
        other: The job's folder that MLflow's run names.
        job: The job's id.
        store: MLflow's store, by an absolute URI.
    """
    try:
        other_job = None if _is_same(folder, other) else _read(other, whole=True)
    except (OSError, ValueError):  # unreachable; the tag tuner.opening still shows which of two has continued
        return False
    if other_job is None or job not in (other_job.id, name_of(other)):
        return False
    if other_job.store:
        return other_job.store == store
    # An older journal lacks the store. A store beside one folder and not beside the other was copied with it.
    file = sqlite_file(store)
    return file is None or not folder.startswith(f"{file.parent}/") or other.startswith(f"{file.parent}/")


def _is_same(folder: str, other: str) -> bool:
    """Return whether two paths name one folder, also by way of a mount, a link or ``file://``."""
    if folder == other:
        return True
    try:
        (files, path), (others, place) = files_at(folder), files_at(other)
        return files.type_name == others.type_name == "local" and Path(path).samefile(place)
    except (OSError, ValueError):
        return False


def _among(job: StoredJob, jobs: list[StoredJob]) -> StoredJob:
    """Return a job with its copies among `jobs`."""
    same = [other for other in jobs if (other.run, other.id) == (job.run, job.id)]
    others = tuple(other.folder for other in same if other is not job)
    return replace(job, copies=others, is_original=not others or job.folder == job.id)


def _read(folder: str, *, whole: bool) -> StoredJob | None:
    """Read a job from its journal's first line, or from the whole journal; None if there is no journal."""
    place = below(folder, JOURNAL)
    try:
        lines = b"".join(read_parts(place)).split(b"\n") if whole else [_first_line(place)]
    except (FileNotFoundError, NotADirectoryError):
        return None
    events = [event for event in map(_opening, lines) if event is not None]
    name = name_of(folder)
    if not events:  # its beginning is damaged; resuming the job reports that
        return StoredJob(name, name, _changed(place), "")
    first, last = events[0], events[-1]
    id_in_name = _ID.match(name)
    id = str(last.get("job") or (id_in_name[0] if id_in_name else name))
    return StoredJob(name, id, float(first["time"]), str(last.get("parent_run", "")), store=str(last.get("store", "")))


def _opening(line: bytes) -> dict[str, Any] | None:
    """Return the event ``opened`` of a line, one for each invocation of a job; None for any other line."""
    if b'"opened"' not in line:
        return None
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_one = isinstance(event, dict) and event.get("event") == "opened"
    return event if is_one and isinstance(event.get("time"), int | float) else None


def _first_line(file: str) -> bytes:
    files, path = files_at(file)
    text = b""
    with files.open_input_stream(path) as stream:
        while b"\n" not in text and (more := stream.read(_CHUNK)):
            text += more
    return text.partition(b"\n")[0]


def _changed(file: str) -> float:
    files, path = files_at(file)
    return float(files.get_file_info(path).mtime_ns or 0) / 1e9
