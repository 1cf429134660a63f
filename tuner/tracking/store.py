"""Connects to a store of MLflow, and reads runs, metrics and artifacts from it."""

import base64
import contextlib
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.errors import Problem, UserError
from tuner.storage import temporary
from tuner.storage.file_lock import exclusive, stand_in
from tuner.storage.uris import absolute, masked, sqlite_file
from tuner.tracking.health import check_reachable, refusal
from tuner.tracking.names import recorded
from tuner.tracking.relocation import relocate
from tuner.tracking.user_mlflow import KEY

CHECKPOINT = "checkpoint"
"""Path of the artifact that holds the best checkpoint of a trial's run."""

SIGNATURE = f"{CHECKPOINT}/signature.json"
"""Path of the artifact that describes the inputs and outputs of the model; older versions of tuner wrote none."""

FIXED = "fixed."
"""Prefix of the tags of a trial's run for keys that were not searched; searched keys are parameters."""

SPACE = "tuner.space."
"""Prefix of the tags of a job's run that describe the search space of a key."""

VIEW = "viewStateShareKey"
"""Query parameter of a URL of MLflow's UI that selects a shared view."""

CONTEXT = "mlflow.data.context"
"""Tag of a dataset input of a run: what the run used the dataset for."""

TESTING = "testing"
"""Value of `CONTEXT` for the test set."""

INFINITY = 1.7976931348623157e308
"""The number that MLflow stores instead of infinity: the largest double."""


def connect(uri: str) -> Any:
    """Return a client of the store at `uri`, and of its registry unless MLFLOW_REGISTRY_URI names another.

    MLflow caches a connection for each URI: a relative URI would go on to mean a file in a former working directory.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for noisy in ("alembic", "mlflow", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    from mlflow import MlflowClient

    with _local_store_lock(uri):
        if moved := relocate(uri):
            logging.getLogger("tuner").warning(moved)
        uri = absolute(uri)
        return MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri)


@contextlib.contextmanager
def _local_store_lock(uri: str) -> Iterator[None]:
    """Lock a store that has no server against other processes on this host.

    MLflow's first client creates the tables of a database. If two jobs start together, both create them, and one fails.
    """
    if uri.startswith(("http:", "https:", "databricks")):
        yield
        return
    file = sqlite_file(uri)
    with exclusive(stand_in("store", str(file.resolve() if file else uri))):
        yield


def download_checkpoint(client: Any, run_id: str, folder: Path, files: Collection[str] = ()) -> Path:
    """Download the best checkpoint of a run into an empty folder: all of it, or those of these `files` that it has.

    Returns:
        The folder with its files.

    Raises:
        UserError: The run has no checkpoint, or this host cannot read it.
    """
    from mlflow.exceptions import MlflowException

    try:
        paths = [each.path for each in client.list_artifacts(run_id, CHECKPOINT)] if files else []
        if not paths:
            return Path(client.download_artifacts(run_id, CHECKPOINT, str(folder)))
        for path in paths:
            if path.rpartition("/")[2] in files:
                client.download_artifacts(run_id, path, str(folder))
        return folder
    except (MlflowException, OSError) as error:
        message = f"there is no checkpoint of the run {run_id} that can be had from here: {masked(str(error))}"
        raise UserError(Problem(message)) from None


def finite(value: float | None) -> float | None:
    """Return a metric's value as read from MLflow; None for NaN and for infinity."""
    return value if value is not None and abs(value) < INFINITY else None


def share_view(client: Any, experiment: str, parent: str, shown: Mapping[str, Any]) -> str:
    """Create a shared view of an experiment: a job's trials, best first, with the searched keys as columns.

    It is what "Share" does in MLflow's UI: a tag of the experiment holds the state of the page, the link holds its key.

    Args:
        client: A client of the store.
        experiment: Id of the experiment.
        parent: Id of the job's run.
        shown: ``objectives``: pairs of a metric and max or min; ``keys``: the searched keys.

    Returns:
        The view's key.
    """
    metric, mode = shown["objectives"][0]
    columns = [f"metrics.`{recorded(name)}`" for name, _ in shown["objectives"]]
    columns += [f"params.`{recorded(key)}`" for key in shown["keys"]]
    columns += ["metrics.`best_epoch`", "tags.`tuner.status`", "tags.`tuner.reason`"]
    state = {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent}'",
        "orderByKey": columns[0],
        "orderByAsc": mode == "min",
        "selectedColumns": columns,
    }
    key = hashlib.sha256(f"{parent} {metric}".encode()).hexdigest()[:16]
    text = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    client.set_experiment_tag(experiment, f"mlflow.sharedViewState.{key}", f"deflate;{text}")
    return key


def runs_below(client: Any, experiment: str, parent: str) -> list[Any] | None:
    """Return the runs of a job's trials, given the id of the job's run; None if that run does not exist.

    Other child runs, which the user created, are left out.
    """
    run = run_of(client, parent)
    if run is None or run.info.experiment_id != experiment or run.info.lifecycle_stage != "active":
        return None
    return _all_runs(client, experiment, f"tags.`mlflow.parentRunId` = '{parent}'")


def run_of_job(client: Any, experiment: str, parent: str, job: str) -> Any | None:
    """Return a job's run: by its id, or the run that replaced it after it was deleted; None if there is none."""
    run = run_of(client, parent) if parent else None
    if run is not None and run.info.experiment_id == experiment and run.info.lifecycle_stage == "active":
        return run
    where = f"tags.`tuner.job` = '{job}' and tags.`tuner.role` = 'parent'"
    return next(search(client, [experiment], where, most=1), None)


def adopt(client: Any, experiment: str, key: str, run: str, status: str, when: float) -> None:
    """Nest the runs that the user's code started inside a trial under the trial's run, and end the active ones.

    Args:
        client: A client of the store.
        experiment: Id of the experiment.
        key: The value of their tag `tuner.tracking.user_mlflow.KEY`.
        run: Id of the trial's run.
        status: The final status, one of MLflow's.
        when: The end time, in seconds since 1970.
    """
    for each in search(client, [experiment], f"tags.`{KEY}` = '{key}'"):
        if "mlflow.parentRunId" not in each.data.tags:  # the user's code may have set a parent
            client.set_tag(each.info.run_id, "mlflow.parentRunId", run)
        if each.info.status == "RUNNING":
            client.set_terminated(each.info.run_id, status, end_time=int(when * 1000))


def steps(client: Any, run: Any) -> set[int]:
    """Return the steps at which a run has metrics; those that have no curve (``best_...``) are left out."""
    names = [name for name in run.data.metrics if not name.startswith("best_")]
    return {metric.step for name in names for metric in client.get_metric_history(run.info.run_id, name)}


def trial_runs(client: Any, source: str) -> list[Any] | None:
    """Return the runs of all trials of an experiment (by name) or of a job (by its run's id); None if there is none."""
    experiment = client.get_experiment_by_name(source)
    if experiment is not None:
        return _all_runs(client, experiment.experiment_id, "tags.`tuner.role` = 'trial'")
    run = run_of(client, source)
    if run is None:
        return None
    return _all_runs(client, run.info.experiment_id, f"tags.`mlflow.parentRunId` = '{source}'")


def _all_runs(client: Any, experiment: str, where: str) -> list[Any]:
    return [run for run in search(client, [experiment], where) if "tuner.trial" in run.data.tags]


@contextlib.contextmanager
def reading(uri: str) -> Iterator[Any]:
    """Yield a client to read an existing store; no store is created.

    Raises:
        UserError: There is no store, it does not answer, or a request fails.
    """
    check_reachable(uri)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # the files are small
    try:
        yield connect(uri)
    except UserError:
        raise
    except Exception as error:
        why = refusal(error, uri)
        if why is None:
            raise
        hint = why[1] or "--uri or MLFLOW_TRACKING_URI says which store is read"
        raise UserError(Problem(f"the store cannot be read: {why[0]}", where=masked(uri), hint=hint)) from None


def search(
    client: Any, experiments: Sequence[str], where: str, order_by: Sequence[str] = (), most: int | None = None
) -> Iterator[Any]:
    """Yield the runs of experiments (by id) that match a filter, newest first unless `order_by` is given."""
    token, page_size = None, min(most or 1000, 1000)
    while True:
        page = client.search_runs(experiments, where, max_results=page_size, order_by=order_by, page_token=token)
        yield from page
        token = page.token
        if not token or most is not None:
            return


def experiments(client: Any) -> dict[str, str]:
    """Return the names of all experiments that are not deleted, by id."""
    names: dict[str, str] = {}
    token = None
    while True:
        page = client.search_experiments(max_results=1000, page_token=token)
        names |= {each.experiment_id: each.name for each in page}
        token = page.token
        if not token:
            return names


def run_of(client: Any, run_id: str) -> Any | None:
    """Return a run by its id, deleted or not; None if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # the latter: no valid id
            return None
        raise


def read_text(client: Any, run_id: str, artifact: str) -> str | None:
    """Return the text of an artifact of a run; None if it does not exist or this host cannot read it."""
    content = read_bytes(client, run_id, artifact)
    return None if content is None else content.decode("utf-8")


def read_bytes(client: Any, run_id: str, artifact: str) -> bytes | None:
    """Return the content of an artifact of a run; None if it does not exist or this host cannot read it."""
    from mlflow.exceptions import MlflowException

    with temporary.folder() as folder:
        try:
            return Path(client.download_artifacts(run_id, artifact, str(folder))).read_bytes()
        except (MlflowException, OSError):
            return None


def artifacts(client: Any, run_id: str, folder: str | None = None) -> list[str] | None:
    """Return the names of the artifacts of a run, in its root or in a folder; None if they cannot be listed."""
    from mlflow.exceptions import MlflowException

    try:
        return [each.path for each in client.list_artifacts(run_id, folder)]
    except (MlflowException, OSError):
        return None


def has_artifact(client: Any, run_id: str, artifact: str, folder: str | None = None) -> bool | None:
    """Return whether a run has an artifact, in its root or in a folder; None if the artifacts cannot be listed."""
    names = artifacts(client, run_id, folder)
    return None if names is None else artifact in names


def time_behind(client: Any, run: str, values: Mapping[str, float], when: float) -> float:
    """Return the time to record new values of a run's metrics at, in seconds since 1970.

    It is `when`, or later than the recorded points if a value differs from theirs: MLflow shows the point with the
    latest time as the metric's value, and the clock may have been set back since the job wrote the recorded points.
    """
    existing = run_of(client, run)
    new = {recorded(name): value for name, value in values.items()}
    old = {name: value for name, value in (existing.data.metrics if existing else {}).items() if name in new}
    if any(new[name] != value for name, value in old.items()):
        points = client.get_metric_history(run, next(iter(old)))
        return max(when, float(max(point.timestamp for point in points)) / 1000 + 0.001)
    return when
