"""Resolution of MODEL, in the command line and in Python, to a checkpoint."""

import contextlib
import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner.errors import Problem, UserError
from tuner.storage import temporary
from tuner.storage.filesystem import as_folder
from tuner.storage.uris import default_uri, masked
from tuner.tracking import store
from tuner.tracking.queries import RecordedJob, RecordedTrial, best_of, find, trials_of
from tuner.tracking.registered.versions import DATA, champion_of, version_at
from tuner.train.checkpoint import DESCRIPTION, METRICS, PACKED, is_checkpoint

FORMS = (
    "a model is NAME (the champion of an experiment, else the winner of its last job), NAME@ALIAS, models:/NAME@ALIAS, "
    "models:/NAME/VERSION, the id of a job or of a run, or a checkpoint's folder"
)


@contextlib.contextmanager
def checkpoint_of(model: str | Path, uri: str | None = None, files: Collection[str] = ()) -> Iterator[Path]:
    """Find the checkpoint of a model and, unless it is a local folder, download it to a temporary folder.

    Args:
        model: One of the `FORMS`; a URI names a folder in an object store. An existing checkpoint of that name takes
            precedence over the names of MLflow.
        uri: MLflow's tracking URI; None for MLFLOW_TRACKING_URI, else MLflow's default.
        files: Names of the files that are needed, where they have to be downloaded; empty for all.

    Raises:
        UserError: The model does not exist, or its checkpoint cannot be downloaded. In a UserError that the body
            raises, the path of the temporary folder is replaced by `model`.
    """
    if isinstance(model, Path) or _means_folder(model):
        if not _is_folder(Path(model)):
            raise UserError(Problem(f"there is no folder {str(model)!r}", hint=FORMS))
        yield Path(model)
        return
    with contextlib.ExitStack() as stack:
        if "://" in model:
            try:
                folder = stack.enter_context(as_folder(model, files))
            except (OSError, ValueError) as error:
                message = f"the checkpoint cannot be read: {masked(str(error))}"
                raise UserError(Problem(message, where=masked(model), hint=FORMS)) from None
        else:
            folder = _download(model, uri or default_uri(), stack.enter_context(temporary.folder()), files)
        try:
            yield folder
        except UserError as error:
            raise error.elsewhere(str(folder), masked(model)) from None


def _means_folder(model: str) -> bool:
    """Whether `model` is a path: it looks like one, or a checkpoint exists there."""
    is_path = "/" in model and "://" not in model and not model.startswith("models:/")
    return is_path or (bool(model) and _is_folder(Path(model)) and is_checkpoint(Path(model)))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # not a valid name of a file
        return False


def _download(model: str, uri: str, folder: Path, files: Collection[str]) -> Path:
    with _told(uri), store.reading(uri) as client:
        version, run = _resolved(client, model)
        if version is None:
            return _of_run(client, run, folder, files)
        return _of_version(client, uri, version, folder, files)


@contextlib.contextmanager
def _told(uri: str) -> Iterator[None]:
    """Add the store and the forms of a MODEL to the problems that the body raises."""
    try:
        yield
    except UserError as error:
        hints = ["; ".join(filter(None, (problem.hint, FORMS))) for problem in error.problems]
        problems = zip(error.problems, hints, strict=True)
        raise UserError(*(replace(p, where=p.where or masked(uri), hint=hint) for p, hint in problems)) from None


def needs_store(model: str | Path) -> bool:
    """Whether a model is looked for in MLflow's store, and not in a folder or at a URI."""
    return not (isinstance(model, Path) or _means_folder(model) or "://" in model)


def pinned(model: str | Path, uri: str | None = None) -> str:
    """Return the address of a model that means the same one from now on: an alias may move to another version.

    Args:
        model: As for `checkpoint_of`.
        uri: As for `checkpoint_of`.

    Returns:
        ``models:/NAME/VERSION`` or the id of a trial's run; a folder or a URI as it is.

    Raises:
        UserError: The model does not exist.
    """
    if not needs_store(model):
        return str(model)
    with _told(uri := uri or default_uri()), store.reading(uri) as client:
        version, run = _resolved(client, str(model))
        return str(run.info.run_id) if version is None else f"models:/{version.name}/{version.version}"


def run_of_model(model: str | Path, uri: str | None = None) -> str | None:
    """Return the id of the run of the trial that trained a model; None if the model is a folder or lies at a URI.

    Args:
        model: As for `checkpoint_of`.
        uri: As for `checkpoint_of`.

    Raises:
        UserError: The model does not exist.
    """
    if not needs_store(model):
        return None
    with _told(uri := uri or default_uri()), store.reading(uri) as client:
        version, run = _resolved(client, str(model))
        return str(run.info.run_id) if version is None else version.run_id or None


def _resolved(client: Any, model: str) -> tuple[Any | None, Any]:
    """The version of a registered model that `model` names, or None and the run of a trial."""
    if model.startswith("models:/"):
        return version_at(client, model), None
    version = version_at(client, f"models:/{model}") if "@" in model else champion_of(client, model)
    if version is not None:
        return version, None
    found = find(client, model)
    return None, (found if isinstance(found, RecordedTrial) else _winner(client, found)).run


def _winner(client: Any, job: RecordedJob) -> RecordedTrial:
    best = best_of(job, trials_of(client, job))
    if best is None:
        message = f"the job {job.id} of {job.experiment} has no winner"
        raise UserError(Problem(message, hint=f"tuner best {job.id} says why"))
    return best


def _of_version(client: Any, uri: str, version: Any, folder: Path, files: Collection[str]) -> Path:
    """Download the checkpoint of a version of a registered model."""
    return _held_by(client, uri, version, folder, files) or _made_into(client, version, folder, files)


def _held_by(client: Any, uri: str, version: Any, folder: Path, files: Collection[str]) -> Path | None:
    """Download the checkpoint that a version itself holds; None if it holds none: an older version of tuner made it."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        place = client.get_model_version_download_uri(version.name, version.version)
        artifacts = get_artifact_repository(place, tracking_uri=uri)
        held = {Path(each.path).name: each.path for each in artifacts.list_artifacts(DATA)}
        if not {PACKED, *DESCRIPTION} <= held.keys():
            return None
        for name, path in held.items():
            if name in (files or {PACKED, *DESCRIPTION}):
                artifacts.download_artifacts(path, str(folder))
    except (MlflowException, OSError, ValueError):  # the run has a copy, or says what is missing
        return None
    return folder / DATA


def _made_into(client: Any, version: Any, folder: Path, files: Collection[str]) -> Path:
    """Download the checkpoint of the run from which a version was made."""
    address = f"models:/{version.name}/{version.version}"
    hint = f"mlflow.pytorch.load_model({address!r}) loads the registered model"
    if not version.run_id:
        message = f"{address} holds no checkpoint of tuner's that can be read, and names no run that has one"
        raise UserError(Problem(message, hint=hint))
    run = store.run_of(client, version.run_id)
    if run is None or run.info.lifecycle_stage != "active":
        raise UserError(Problem(f"the run of {address} was deleted", hint=hint))
    checkpoint = _of_run(client, run, folder, files)
    registered, stored = version.tags.get("tuner.epoch", ""), _epoch(checkpoint)
    if registered and stored and registered != stored:
        message = f"{address} is of epoch {registered}, but its run continued: its checkpoint is of epoch {stored}"
        raise UserError(Problem(message, hint=hint))
    return checkpoint


def _of_run(client: Any, run: Any, folder: Path, files: Collection[str]) -> Path:
    """Download the checkpoint of a trial's run."""
    run_id = run.info.run_id
    if "target" in RecordedTrial(run, "").fixed:
        hint = f"mlflow artifacts download -r {run_id} -a {store.CHECKPOINT}"
        message = f"the run {run_id} is of your own function: only your code can read its checkpoint"
        raise UserError(Problem(message, hint=hint))
    return store.download_checkpoint(client, run_id, folder, files)


def _epoch(checkpoint: Path) -> str:
    """The epoch of a checkpoint; empty if unknown."""
    try:
        return str(json.loads((checkpoint / METRICS).read_text(encoding="utf-8")).get("epoch", ""))
    except (OSError, ValueError, AttributeError):  # damaged: `tuner.train.checkpoint` reports that
        return ""
