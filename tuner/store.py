"""MLflow's store: a client of it, what is read from it, and our values as its entities."""

import base64
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.address import default_uri
from tuner.errors import Problem, UserError

CHECKPOINT = "checkpoint"
"""Name of the artifact that holds the best checkpoint of a trial's run."""


VIEW = "viewStateShareKey"
"""Names the state of a page of MLflow's UI in its address."""

_LONGEST = 6000  # characters of a parameter or a tag, by MLflow's limits


def connect(uri: str) -> Any:
    """A client of the store at `uri`."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for noisy in ("alembic", "mlflow", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def download_checkpoint(run_id: str) -> Path:
    """The best checkpoint of a run, as a local folder.

    Raises:
        UserError: There is no such run, or it has no checkpoint.
    """
    uri = default_uri()
    client = connect(uri)
    from mlflow.exceptions import MlflowException

    try:
        return Path(client.download_artifacts(run_id, CHECKPOINT))
    except (MlflowException, OSError) as error:
        hint = "give the id of a trial's run, or a checkpoint's folder; MLFLOW_TRACKING_URI says in which store"
        raise UserError(Problem(f"no checkpoint of a run {run_id!r}: {error}", where=uri, hint=hint)) from None


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def params(params: Mapping[str, Any]) -> list[Any]:
    """Parameters, their values as text."""
    from mlflow.entities import Param

    return [Param(key, str(value)[:_LONGEST]) for key, value in params.items()]


def tags(tags: Mapping[str, str]) -> list[Any]:
    """Tags; those without a value are left out, and of long ones the end."""
    from mlflow.entities import RunTag

    return [RunTag(key, value[:_LONGEST]) for key, value in tags.items() if value]


def metrics(metrics: Mapping[str, float], when: float, step: int | None) -> list[Any]:
    """Metrics measured at a time (seconds since the epoch) and a step."""
    from mlflow.entities import Metric

    return [Metric(key, float(value), int(when * 1000), step or 0) for key, value in metrics.items()]


def dataset_inputs(data: Mapping[str, Any]) -> list[Any]:
    """The dataset of each set that trials see by its true name, with its digest and size.

    Args:
        data: ``name``, ``digest``, ``source``, and ``sizes``: images by the name of the set.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    contexts = {"train": "training", "validation": "validation"}
    return [
        DatasetInput(
            Dataset(
                name=f"{data['name']}-{part}",
                digest=data["digest"],
                source_type="local",
                source=json.dumps({"uri": data["source"]}),
                profile=json.dumps({"num_rows": rows}),
            ),
            tags=[InputTag("mlflow.data.context", contexts[part])],
        )
        for part, rows in data["sizes"].items()
        if part in contexts
    ]


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
    columns = [f"metrics.`{name}`" for name, _ in shown["objectives"]]
    columns += [f"params.`{key}`" for key in shown["keys"]]
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
    """The runs of a job's trials, given the id of its own run; None where that is not there."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(parent)
    except MlflowException:
        return None
    if run.info.experiment_id != experiment or run.info.lifecycle_stage != "active":
        return None
    return _all_runs(client, experiment, f"tags.`mlflow.parentRunId` = '{parent}'")


def steps(client: Any, run: Any) -> set[int]:
    """The steps at which a run has metrics that were measured at each."""
    names = [name for name in run.data.metrics if not name.startswith("best_")]
    return {metric.step for name in names for metric in client.get_metric_history(run.info.run_id, name)}


def trial_runs(client: Any, source: str) -> list[Any] | None:
    """The runs of all trials of an experiment (by name), or of one job (by its run's id); None for neither."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(source)
    if experiment is not None:
        return _all_runs(client, experiment.experiment_id, "tags.`tuner.role` = 'trial'")
    try:
        run = client.get_run(source)
    except MlflowException:
        return None
    return _all_runs(client, run.info.experiment_id, f"tags.`mlflow.parentRunId` = '{source}'")


def _all_runs(client: Any, experiment: str, where: str) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment], where, max_results=1000, page_token=token)
        found += [run for run in page if "tuner.trial" in run.data.tags]
        token = page.token
        if not token:
            return found
