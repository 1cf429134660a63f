"""MLflow's store: a client of it, what is read from it, and our values as its entities."""

import base64
import contextlib
import hashlib
import json
import logging
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.errors import Problem, UserError
from tuner.storage import temporary
from tuner.storage.file_lock import exclusive
from tuner.storage.uris import absolute, masked, sqlite_file
from tuner.tracking.health import check_reachable, refusal
from tuner.tracking.names import recorded
from tuner.tracking.relocation import relocate
from tuner.tracking.user_mlflow import KEY

CHECKPOINT = "checkpoint"
"""Name of the artifact that holds the best checkpoint of a trial's run."""

SIGNATURE = f"{CHECKPOINT}/signature.json"
"""Name of the file in it that says what its model takes and returns; older versions wrote none."""


FIXED = "fixed."
"""Begins the tag of a key of a trial that was not searched; parameters are what was."""

SPACE = "tuner.space."
"""Begins the tag of a job's own run that says what is searched of a key."""

VIEW = "viewStateShareKey"
"""Names the state of a page of MLflow's UI in its address."""

CONTEXT = "mlflow.data.context"
"""Tag of a run's dataset: what it was used for."""

TESTING = "testing"
"""What the test set is used for."""

INFINITY = 1.7976931348623157e308
"""As which MLflow keeps it: the largest number that a database takes."""


def connect(uri: str) -> Any:
    """A client of the store at `uri`, and of its registry unless MLFLOW_REGISTRY_URI names another.

    MLflow keeps a connection for each URI: a relative one would stand for the file of a folder that was left.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for noisy in ("alembic", "mlflow", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    from mlflow import MlflowClient

    with _alone_with(uri):
        if moved := relocate(uri):
            logging.getLogger("tuner").warning(moved)
        uri = absolute(uri)
        return MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri)


@contextlib.contextmanager
def _alone_with(uri: str) -> Iterator[None]:
    """Keep others on this machine from a database meanwhile.

    Whoever comes first makes its tables, and MLflow lets two jobs that begin together do so at once: one of them fails.
    """
    if uri.startswith(("http:", "https:", "databricks")):
        yield
        return
    file = sqlite_file(uri)
    name = hashlib.sha256(str(file.resolve() if file else uri).encode()).hexdigest()[:16]
    with exclusive(Path(tempfile.gettempdir(), f"tuner-store-{os.getuid()}-{name}")):
        yield


def download_checkpoint(client: Any, run_id: str, folder: Path) -> Path:
    """The best checkpoint of a run, downloaded into a folder.

    Raises:
        UserError: The run has none, or it lies where this machine does not see it.
    """
    from mlflow.exceptions import MlflowException

    try:
        return Path(client.download_artifacts(run_id, CHECKPOINT, str(folder)))
    except (MlflowException, OSError) as error:
        message = f"there is no checkpoint of the run {run_id} that can be had from here: {masked(str(error))}"
        raise UserError(Problem(message)) from None


def finite(value: float | None) -> float | None:
    """A number as it was read; None where it is NaN, or the one that stands for an infinity."""
    return value if value is not None and abs(value) < INFINITY else None


def share_view(client: Any, experiment: str, parent: str, shown: Mapping[str, Any]) -> str:
    """Have MLflow's page of an experiment show a job's trials, best first, with what was searched as columns.

    It is what "Share" does in MLflow's UI: the state of the page in a tag of the experiment, its key in the link.

    Args:
        client: Of the store.
        experiment: Id of the experiment.
        parent: Id of the job's own run.
        shown: ``objectives``: pairs of a metric and max or min; ``keys``: of the parameters.

    Returns:
        The key.
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
    """The runs of a job's trials, given the id of its own run; None where that is not there.

    What else its user has put below that run is none of them.
    """
    run = run_of(client, parent)
    if run is None or run.info.experiment_id != experiment or run.info.lifecycle_stage != "active":
        return None
    return _all_runs(client, experiment, f"tags.`mlflow.parentRunId` = '{parent}'")


def run_of_job(client: Any, experiment: str, parent: str, job: str) -> Any | None:
    """A job's own run: by its id, or the one that was made anew when that was gone; None where there is none."""
    run = run_of(client, parent) if parent else None
    if run is not None and run.info.experiment_id == experiment and run.info.lifecycle_stage == "active":
        return run
    where = f"tags.`tuner.job` = '{job}' and tags.`tuner.role` = 'parent'"
    return next(search(client, [experiment], where, most=1), None)


def adopt(client: Any, experiment: str, key: str, run: str, status: str, when: float) -> None:
    """Put the runs that code of the user's own began inside a trial below its run, and end those that it left active.

    Args:
        client: Of the store.
        experiment: Id of the experiment.
        key: What `tuner.tracking.user_mlflow.KEY` says of them.
        run: Id of the trial's run.
        status: MLflow's, how the trial ended.
        when: Seconds since 1970.
    """
    for each in search(client, [experiment], f"tags.`{KEY}` = '{key}'"):
        if "mlflow.parentRunId" not in each.data.tags:  # else the user has named one
            client.set_tag(each.info.run_id, "mlflow.parentRunId", run)
        if each.info.status == "RUNNING":
            client.set_terminated(each.info.run_id, status, end_time=int(when * 1000))


def steps(client: Any, run: Any) -> set[int]:
    """The steps at which a run has metrics that were measured at each."""
    names = [name for name in run.data.metrics if not name.startswith("best_")]
    return {metric.step for name in names for metric in client.get_metric_history(run.info.run_id, name)}


def trial_runs(client: Any, source: str) -> list[Any] | None:
    """The runs of all trials of an experiment (by name), or of one job (by its run's id); None for neither."""
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
    """A client to read a store with, where there is one; none is made.

    Raises:
        UserError: There is no store, it does not answer, or what is asked of it fails.
    """
    check_reachable(uri)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # of a file of a few kilobytes
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
    """The runs of experiments (by id) that a filter lets through, page by page: newest first, unless said otherwise."""
    token, page_size = None, min(most or 1000, 1000)
    while True:
        page = client.search_runs(experiments, where, max_results=page_size, order_by=order_by, page_token=token)
        yield from page
        token = page.token
        if not token or most is not None:
            return


def experiments(client: Any) -> dict[str, str]:
    """The names of all experiments that are not deleted, by id."""
    names: dict[str, str] = {}
    token = None
    while True:
        page = client.search_experiments(max_results=1000, page_token=token)
        names |= {each.experiment_id: each.name for each in page}
        token = page.token
        if not token:
            return names


def run_of(client: Any, run_id: str) -> Any | None:
    """A run, deleted or not; None where there is none of this id."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # the latter: no id at all
            return None
        raise


def read_text(client: Any, run_id: str, artifact: str) -> str | None:
    """The text of an artifact of a run; None where there is none, or none that can be had from here."""
    from mlflow.exceptions import MlflowException

    with temporary.folder() as folder:
        try:
            return Path(client.download_artifacts(run_id, artifact, str(folder))).read_text(encoding="utf-8")
        except (MlflowException, OSError):
            return None


def has_artifact(client: Any, run_id: str, artifact: str, folder: str | None = None) -> bool | None:
    """Whether a run has an artifact, in its root or in a folder; None where its store does not tell."""
    from mlflow.exceptions import MlflowException

    try:
        return any(each.path == artifact for each in client.list_artifacts(run_id, folder))
    except (MlflowException, OSError):
        return None


def time_behind(client: Any, run: str, values: Mapping[str, float], when: float) -> float:
    """When these metrics of a run are so, in seconds since 1970: `when`, or behind what the run has of them already.

    MLflow takes those of the latest time for what is so: where the clock was set back since an earlier run of the job
    has written its own, new ones have to come behind these.
    """
    there = run_of(client, run)
    told = {recorded(name): value for name, value in values.items()}
    old = {name: value for name, value in (there.data.metrics if there else {}).items() if name in told}
    if any(told[name] != value for name, value in old.items()):
        points = client.get_metric_history(run, next(iter(old)))
        return max(when, float(max(point.timestamp for point in points)) / 1000 + 0.001)
    return when
