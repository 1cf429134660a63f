"""What can be known before anything is started: whether the record and the checkpoints can be written."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import psutil

from tuner.address import MLFLOW_DEFAULT, default_uri, masked
from tuner.any_trial import merge
from tuner.errors import Problem, UserError
from tuner.reachable import kind_of, unanswered
from tuner.spec import ExperimentSpec


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
        _check_writable(Path(uri.removeprefix("sqlite:///")), "tracking.uri", uri, is_file=True)
    elif kind == "file":
        _check_writable(Path(uri.removeprefix("file://")), "tracking.uri", uri)
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
        many = count * (spec.trial.length or 1) if spec.scheduler.mutates else kept + 2 * (os.cpu_count() or 1)
        needed[Path(spec.storage)] = many * each
    if kind_of(uri) in ("sqlite", "file"):  # where MLflow's artifacts lie beside it
        needed[Path(uri.removeprefix("sqlite:///").removeprefix("file://"))] = count * each
    free: dict[int, tuple[int, int]] = {}
    for path, size in needed.items():
        there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
        disk = there.stat().st_dev
        free[disk] = (shutil.disk_usage(there).free, free.get(disk, (0, 0))[1] + size)
    for room, size in free.values():
        if size > room:
            message = f"the checkpoints take up to {_bytes(size)} ({_bytes(each)} each), and {_bytes(room)} are free"
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


def _bytes(count: int) -> str:
    size, units = float(count), ["bytes", "KB", "MB", "GB", "TB", "PB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"


def _check_writable(path: Path, key: str, shown: str, *, is_file: bool = False) -> None:
    """Write a nameless file where `path` is or would be made: permissions alone do not tell of a read-only disk."""
    folder = path.parent if is_file else path
    while not folder.exists():
        folder = folder.parent
    why = ""
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
        raise UserError(Problem(why, key, shown, "choose another folder"))
