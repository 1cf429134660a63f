"""What can be known before anything is started: whether the record and the checkpoints can be written."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import psutil

from tuner.errors import Problem, UserError
from tuner.formatting import byte_size
from tuner.ray_backend.working_dir import unpacked
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.uris import MLFLOW_DEFAULT, default_uri, local_path, masked
from tuner.tracking.health import kind_of, unanswered
from tuner.train.trial_base import merge

_NAME, _PATH = 255, 4095  # bytes that Linux and macOS allow, at least to those who do not ask the disk
_BELOW = 600  # bytes of a path for what a job has in its storage: its own name, trials, checkpoints and their files
_DATABASE = 504  # bytes that SQLite allows, for its journal's name beside it, too


def tracking_uri(spec: ExperimentSpec) -> str:
    """Where the record is kept: the file's ``tracking.uri``, else MLflow's default."""
    return spec.tracking.uri or default_uri()


def check_store(uri: str) -> None:
    """Make sure that MLflow's store can be reached and written.

    Raises:
        UserError: It cannot.
    """
    kind = kind_of(uri, "tracking.uri")
    if kind == "sqlite":
        _check_writable(local_path(uri), "tracking.uri", uri, is_file=True)
    elif kind == "file":
        _check_writable(local_path(uri), "tracking.uri", uri)
    elif why := unanswered(uri):
        hint = f"set tracking.uri or MLFLOW_TRACKING_URI; without them the record goes to {MLFLOW_DEFAULT}"
        raise UserError(Problem(f"the store cannot be reached: {why}", "tracking.uri", masked(uri), hint))


def check_storage(spec: ExperimentSpec) -> None:
    """Make sure that a local folder for checkpoints can be written. A remote one answers when it is used.

    Raises:
        UserError: It cannot, or TensorBoard's files, which have to be local, would be elsewhere.
    """
    if "://" not in spec.storage:
        _check_writable(Path(spec.storage), "storage", spec.storage)
    elif spec.tracking.tensorboard:
        hint = "choose a local folder as storage, or leave it out: MLflow has the same curves"
        raise UserError(Problem("its files have to be local", "tracking.tensorboard", masked(spec.storage), hint))


def check_outlives(spec: ExperimentSpec, uri: str) -> None:
    """Make sure that neither the record nor the checkpoints lie in a folder that Ray deletes when its job has ended.

    Raises:
        UserError: They do: this is a job of Ray's with a working directory that was made for it.
    """
    folder = unpacked()
    if folder is None:
        return
    problems = []
    if "://" not in spec.storage and Path(spec.storage).is_relative_to(folder):
        hint = "choose what all machines reach: storage=s3://BUCKET/runs, or a shared folder, storage=/shared/runs"
        problems.append(Problem("it would be gone with the job's temporary folder", "storage", spec.storage, hint))
    if kind_of(uri) in ("sqlite", "file"):
        path = local_path(uri).resolve()
        if path.is_relative_to(folder):
            hint = "set MLFLOW_TRACKING_URI in the environment that the head's `ray start` is given in, or tracking.uri"
            problems.append(Problem("it would be gone with the job's temporary folder", "tracking.uri", uri, hint))
    if problems:
        raise UserError(*problems)


def check_room(spec: ExperimentSpec, uri: str) -> None:
    """Make sure that the checkpoints have room on the local disks that they go to.

    It is an estimate from above: three numbers for each parameter (the weight, and the two of Adam), the largest model
    of the space in every trial.

    Raises:
        UserError: They have not.
    """
    parameters = _most_parameters(spec)
    if parameters is None:
        return
    each, count = 12 * parameters, spec.count()
    needed: dict[Path, int] = {}
    if "://" not in spec.storage:
        keep = spec.checkpoints.keep
        kept = count if keep == "all" else min(keep, count)
        many = count * (spec.trial.length or 1) if spec.scheduler.mutates else kept + 3 * (os.cpu_count() or 1)
        needed[Path(spec.storage)] = many * each
    if kind_of(uri) in ("sqlite", "file"):  # where MLflow's artifacts lie beside it
        needed[local_path(uri)] = count * each
    free: dict[int, tuple[int, int]] = {}
    for path, size in needed.items():
        there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
        disk = there.stat().st_dev
        free[disk] = (shutil.disk_usage(there).free, free.get(disk, (0, 0))[1] + size)
    for room, size in free.values():
        if size > room:
            most = f"{byte_size(size)} ({byte_size(each)} each)"
            message = f"the checkpoints take up to {most}, and {byte_size(room)} are free"
            hint = "choose another disk, fewer trials, a smaller model, or checkpoints: {keep: 1}"
            raise UserError(Problem(message, "storage", spec.storage, hint))


def _most_parameters(spec: ExperimentSpec) -> int | None:
    """Parameters of the largest model of the space that this machine's memory has room for; None for unknown.

    One that is larger fails as it is built, and leaves no checkpoint.
    """
    trial = spec.trial
    if trial.targets:  # code of the user's own is for the workers
        return None
    counts = [trial.count_parameters()]
    for key, distribution in spec.space.items():
        if key == "model" or key.startswith("model."):
            for value in distribution.corners():
                with contextlib.suppress(UserError, ValueError):  # a value that needs another beside it
                    counts.append(merge(trial, {key: value}).count_parameters())
    memory = psutil.virtual_memory().total
    known = [count for count in counts if count is not None and 4 * count <= memory]
    return max(known) if known else None


def _check_writable(path: Path, key: str, value: str, *, is_file: bool = False) -> None:
    """Write a nameless file where `path` is or would be made: permissions alone do not tell of a read-only disk."""
    folder = path.parent if is_file else path
    if why := _too_long(path, is_file=is_file):
        raise UserError(Problem(why, key, value, "choose a shorter one"))
    while not folder.exists():
        folder = folder.parent
    if is_file and path.exists() and not os.access(path, os.W_OK):
        why = f"{path} cannot be written"
    elif not folder.is_dir():
        why = f"{folder} is not a folder"
    else:
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            why = f"{folder} cannot be written: {error.strerror}"
    if why:
        raise UserError(Problem(why, key, value, "choose another folder"))


def _too_long(path: Path, *, is_file: bool) -> str:
    """Why a database, or what a job has below a folder, could not have its path; empty where it can."""
    most = _DATABASE if is_file else _PATH - _BELOW
    for name in path.parts:
        if len(os.fsencode(name)) > _NAME:
            return f"a name of a file may have {_NAME} bytes, and {name[:20]}... has {len(os.fsencode(name))}"
    size = len(os.fsencode(path.absolute()))
    what = "the database" if is_file else "the folder"
    return f"the path of {what} may have {most} bytes, and it has {size}" if size > most else ""
