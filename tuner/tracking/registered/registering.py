"""Registers the model of a job's winner in MLflow's registry, and compares it with the champion.

It imports torch, which takes seconds: the writer process imports it in advance, while trials train.
"""

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from tuner.objectives import Objective
from tuner.storage import temporary
from tuner.tracking.names import recorded
from tuner.tracking.record.run_files import upload
from tuner.tracking.registered.mlflow_model import description_of, write_model
from tuner.tracking.registered.versions import CANDIDATE, CHAMPION

_VERSION_KEYS = ("metric", "mode", "value", "dataset", "epoch")
"""Keys that are recorded as tags of a model version: they identify a winner and tell which of two is better."""


def register(client: Any, uri: str, run: str, winner: Mapping[str, Any]) -> str:
    """Log a checkpoint's model to its run and register it.

    The version becomes the champion if there is none, or if it has a better value of the same objective on the same
    dataset; else it becomes a candidate.

    Args:
        client: A client of the store.
        uri: The store's URI.
        run: Id of the winner's run.
        winner: ``name`` of the model; ``checkpoint``: a folder; ``targets``: the user's code that the trial names;
            ``code``: the files of that of the model, by their paths, in base64; ``example``: a validation image as
            `tuner.inspection.winner.Look` has it, in base64; ``metric``, ``mode`` and ``value`` of the objective;
            ``dataset``: name and digest; ``epoch``: the best one; ``metrics``: names of the metrics that the run has at
            that epoch. Older versions of tuner recorded winners without code and example.

    Returns:
        The version's URI with its alias, such as ``models:/mnist@champion``.
    """
    with _defaults_of_mlflow(uri, os.environ.get("MLFLOW_REGISTRY_URI", uri)):
        return _register(client, uri, run, winner)


@contextlib.contextmanager
def _defaults_of_mlflow(tracking: str, registry: str) -> Iterator[None]:
    """Make two URIs MLflow's defaults in this process: a registry in a database asks them, and no client names others.

    MLflow's setters change the environment, too, which `tuner.tracking.store.connect` and later registrations read.
    """
    before = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    mlflow.set_tracking_uri(tracking)
    mlflow.set_registry_uri(registry)
    try:
        yield
    finally:
        # None: the environment decides again, which holds what a setter set before.
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _register(client: Any, uri: str, run: str, winner: Mapping[str, Any]) -> str:
    name = winner["name"]
    version = _existing_version(client, run, winner)
    if version is None:
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        logged = _log_model(client, uri, run, winner)
        tags = {f"tuner.{key}": str(winner[key]) for key in _VERSION_KEYS}
        version = client.create_model_version(
            name,
            f"models:/{logged.model_id}",
            run,
            tags=tags,
            description=description_of(Path(winner["checkpoint"]), winner),
            model_id=logged.model_id,
        )
        registered = json.dumps([{"name": name, "version": version.version}])  # the page of the model reads it
        client.set_logged_model_tags(logged.model_id, {"mlflow.modelVersions": registered})
    champion = _champion(client, name)
    is_champion = champion is not None and champion.version == version.version
    alias = CHAMPION if is_champion or _is_better(winner, champion) else CANDIDATE
    client.set_registered_model_alias(name, alias, version.version)
    return f"models:/{name}@{alias}"


def _existing_version(client: Any, run: str, winner: Mapping[str, Any]) -> Any | None:
    """Return the winner's version if it is registered already: an attempt was interrupted, or the job ended before."""
    found = client.search_model_versions(f"run_id = '{run}'")
    tags = {f"tuner.{key}": str(winner[key]) for key in _VERSION_KEYS}
    return next((each for each in found if each.name == winner["name"] and tags.items() <= each.tags.items()), None)


def _log_model(client: Any, uri: str, run: str, winner: Mapping[str, Any]) -> Any:
    """Log the model of the winner's checkpoint to its run, and return it as MLflow's logged model."""
    # MLflow's own `log_model` would start the run again and read the history of each of its metrics.
    experiment = client.get_run(run).info.experiment_id
    logged = client.create_logged_model(experiment, name="model", source_run_id=run)
    with temporary.folder() as temporary_folder:
        folder = Path(temporary_folder, "model")
        write_model(folder, Model(logged.artifact_location, run, model_id=logged.model_id), winner)
        upload(folder, logged.artifact_location, "", uri)
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(run, [LoggedModelOutput(logged.model_id, winner["epoch"])])
    client.log_batch(run, metrics=_model_metrics(client, run, winner["metrics"], winner["epoch"], logged.model_id))
    return logged


def _model_metrics(client: Any, run: str, metrics: Sequence[str], epoch: int, model: str) -> list[Any]:
    """Return a run's metrics at an epoch as metrics that are linked to a model.

    Key, value, time and step equal those that the run has, so that MLflow adds no second point to the run's curves.
    """
    with ThreadPoolExecutor(8) as pool:
        histories = list(pool.map(lambda name: client.get_metric_history(run, recorded(name)), metrics))
    points = [point for history in histories for point in history if point.step == epoch]
    return [Metric(p.key, p.value, p.timestamp, p.step, model_id=model, run_id=run) for p in points]


def _champion(client: Any, name: str) -> Any | None:
    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # the latter: no such alias
            return None
        raise  # an unreachable store may still have a champion


def _is_better(winner: Mapping[str, Any], champion: Any | None) -> bool:
    """Return whether the winner replaces the champion: only values of one metric on one dataset can be compared."""
    if champion is None:
        return True
    tags = champion.tags
    if any(tags.get(f"tuner.{key}") != str(winner[key]) for key in ("metric", "mode", "dataset")):
        return False
    if not math.isfinite(float(tags["tuner.value"])):  # older versions of tuner registered such values
        return True
    objective = Objective(metric=winner["metric"], mode=winner["mode"])
    return objective.improves(winner["value"], float(tags["tuner.value"]), by=0.0)
