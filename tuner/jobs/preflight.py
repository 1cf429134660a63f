"""Checks before a job starts: whether the record and the checkpoints can be written."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import psutil

from tuner.errors import Problem, UserError
from tuner.formatting import byte_size
from tuner.ray_backend.cluster.working_dir import unpacked
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.uris import MLFLOW_DEFAULT, default_uri, local_path, masked
from tuner.tracking.health import kind_of, unanswered
from tuner.train.costly import Costly
from tuner.train.trial_base import merge

_MAX_NAME, _MAX_PATH = 255, 4095  # bytes that Linux and macOS allow on most file systems
_RESERVED = 600  # bytes of a path for what a job writes below its storage: its id, trials, checkpoints, their files
_MAX_DATABASE = 504  # bytes of a path that SQLite allows, less the suffix of its journal


def tracking_uri(spec: ExperimentSpec) -> str:
    """Return MLflow's tracking URI: the file's ``tracking.uri``, else MLflow's default."""
    return spec.tracking.uri or default_uri()


def check_store(uri: str) -> None:
    """Check that MLflow's store can be reached and written.

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


def check_packages(spec: ExperimentSpec) -> None:
    """Check that the packages are there that measuring the trials needs.

    Raises:
        UserError: They are not.
    """
    Costly(spec.costly_metrics)


def check_storage(spec: ExperimentSpec) -> None:
    """Check that a local folder for checkpoints can be written. A remote storage is not checked here.

    Raises:
        UserError: It cannot, or TensorBoard's files, which have to be local, would be remote.
    """
    if "://" not in spec.storage:
        _check_writable(Path(spec.storage), "storage", spec.storage)
    elif spec.tracking.tensorboard:
        hint = "choose a local folder as storage, or omit tracking.tensorboard: MLflow has the same curves"
        raise UserError(Problem("its files have to be local", "tracking.tensorboard", masked(spec.storage), hint))


def check_persistent(spec: ExperimentSpec, uri: str) -> None:
    """Check that neither the record nor the checkpoints lie in the working directory that Ray deletes with its job.

    Raises:
        UserError: They do.
    """
    folder = unpacked()
    if folder is None:
        return
    problems = []
    if "://" not in spec.storage and Path(spec.storage).is_relative_to(folder):
        hint = (
            "choose a storage that all nodes reach: storage=s3://BUCKET/runs, or a shared folder, storage=/shared/runs"
        )
        problems.append(Problem("Ray would delete it with the job's working directory", "storage", spec.storage, hint))
    if kind_of(uri) in ("sqlite", "file"):
        path = local_path(uri).resolve()
        if path.is_relative_to(folder):
            hint = "set MLFLOW_TRACKING_URI in the environment that the head's `ray start` is given in, or tracking.uri"
            problems.append(Problem("Ray would delete it with the job's working directory", "tracking.uri", uri, hint))
    if problems:
        raise UserError(*problems)


def check_disk_space(spec: ExperimentSpec, uri: str) -> None:
    """Check that the local disks have space for the checkpoints.

    The estimate is an upper bound: three float32 numbers for each parameter (the weight, and Adam's two moments), and
    the largest model of the space in every trial.

    Raises:
        UserError: They have not.
    """
    parameters = _max_parameters(spec)
    if parameters is None:
        return
    each, count = 12 * parameters, spec.count()
    needed: dict[Path, int] = {}
    if "://" not in spec.storage:
        keep = spec.checkpoints.keep
        kept = count if keep == "all" else min(keep, count)
        checkpoints = count * (spec.trial.length or 1) if spec.scheduler.mutates else kept + 3 * (os.cpu_count() or 1)
        needed[Path(spec.storage)] = checkpoints * each
    if kind_of(uri) in ("sqlite", "file"):  # then MLflow's artifacts lie beside the store
        needed[local_path(uri)] = count * each
    disks: dict[int, tuple[int, int]] = {}  # free and needed bytes by device
    for path, size in needed.items():
        existing = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
        device = existing.stat().st_dev
        disks[device] = (shutil.disk_usage(existing).free, disks.get(device, (0, 0))[1] + size)
    for free, size in disks.values():
        if size > free:
            estimate = f"{byte_size(size)} ({byte_size(each)} each)"
            message = f"the checkpoints take up to {estimate}, and {byte_size(free)} are free"
            hint = "choose another disk, fewer trials, a smaller model, or checkpoints: {keep: 1}"
            raise UserError(Problem(message, "storage", spec.storage, hint))


def _max_parameters(spec: ExperimentSpec) -> int | None:
    """Return the parameters of the largest model of the space that fits into this host's memory; None if unknown.

    A larger model fails when it is built, and has no checkpoint.
    """
    trial = spec.trial
    if trial.targets:  # only workers call code of the user's own
        return None
    counts = [trial.count_parameters()]
    for key, distribution in spec.space.items():
        if key == "model" or key.startswith("model."):
            for value in distribution.corners():
                with contextlib.suppress(UserError, ValueError):  # a value that is valid only with one of another key
                    counts.append(merge(trial, {key: value}).count_parameters())
    memory = psutil.virtual_memory().total
    known = [count for count in counts if count is not None and 4 * count <= memory]
    return max(known) if known else None


def _check_writable(path: Path, key: str, value: str, *, is_file: bool = False) -> None:
    """Write a temporary file to the folder of `path`: permissions alone do not show that a disk is read-only."""
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
    """Return why a path is too long for a database, or for a folder with a job's files; empty where it is not."""
    limit = _MAX_DATABASE if is_file else _MAX_PATH - _RESERVED
    for name in path.parts:
        if len(os.fsencode(name)) > _MAX_NAME:
            return f"a file's name may have {_MAX_NAME} bytes, and {name[:20]}... has {len(os.fsencode(name))}"
    size = len(os.fsencode(path.absolute()))
    kind = "the database" if is_file else "the folder"
    return f"the path of {kind} may have {limit} bytes, and it has {size}" if size > limit else ""
