"""The winner as a model in MLflow's registry, and whether it is better than the champion that is there.

It takes torch, so the process that writes the record imports it when a job comes to its end.
"""

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
import torch._dynamo  # what exporting takes: two seconds, while others train
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.exceptions import MlflowException
from mlflow.models import Model, infer_signature

from tuner.objectives import Objective
from tuner.storage import temporary
from tuner.tracking.names import recorded
from tuner.tracking.record.run_files import upload
from tuner.tracking.registered_models import CANDIDATE, CHAMPION
from tuner.train.checkpoint import read_model
from tuner.version import __version__

_DECIDES = ("metric", "mode", "value", "dataset", "epoch")
"""What is noted on a version: it tells two winners apart, and which of them is better."""


def register(client: Any, uri: str, run: str, said: Mapping[str, Any]) -> str:
    """Log a checkpoint's model on its run and register it.

    It becomes the champion if there is none, or if it is better than that one on the same dataset in the same
    objective; else it is a candidate.

    Args:
        client: Of the store.
        uri: The store.
        run: Id of the winner's run.
        said: ``name`` of the model; ``checkpoint``: a folder; ``targets``: the code of the user's own that it needs;
            ``metric``, ``mode`` and ``value`` of the objective; ``dataset``: name and digest; ``metrics``: names of
            those that the run has of ``epoch``, its best.

    Returns:
        The version's address with its alias, such as ``models:/mnist@champion``.
    """
    name = said["name"]
    mlflow.set_tracking_uri(uri)  # a registry in a database looks there for the model that a version is of
    mlflow.set_registry_uri(os.environ.get("MLFLOW_REGISTRY_URI", uri))
    version = _registered(client, run, said)
    if version is None:
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        logged = _logged(client, uri, run, said)
        tags = {f"tuner.{key}": str(said[key]) for key in _DECIDES}
        version = client.create_model_version(
            name, f"models:/{logged.model_id}", run, tags=tags, model_id=logged.model_id
        )
    champion = _champion(client, name)
    is_champion = champion is not None and champion.version == version.version
    alias = CHAMPION if is_champion or _is_better(said, champion) else CANDIDATE
    client.set_registered_model_alias(name, alias, version.version)
    return f"models:/{name}@{alias}"


def _registered(client: Any, run: str, said: Mapping[str, Any]) -> Any | None:
    """The version that a winner has already: after an attempt that was cut off, or from an earlier end of its job."""
    found = client.search_model_versions(f"run_id = '{run}'")
    told = {f"tuner.{key}": str(said[key]) for key in _DECIDES}
    return next((each for each in found if each.name == said["name"] and told.items() <= each.tags.items()), None)


def _logged(client: Any, uri: str, run: str, said: Mapping[str, Any]) -> Any:
    signature, model = read_model(Path(said["checkpoint"]), said["targets"])
    image = signature.image
    example = np.random.default_rng(0).random((2, image.channels, image.height, image.width), dtype=np.float32)
    with torch.inference_mode():
        outputs = model(torch.from_numpy(example))
    shown = {k: v.numpy() for k, v in outputs.items()} if isinstance(outputs, dict) else outputs.numpy()
    # Not by `mlflow.pytorch.log_model`: that one begins the run once more, and asks for each of its metrics' history.
    experiment = client.get_run(run).info.experiment_id
    logged = client.create_logged_model(experiment, name="model", source_run_id=run)
    with temporary.folder() as there, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on other ways to keep a model
        save = partial(
            mlflow.pytorch.save_model,
            model,
            mlflow_model=Model(artifact_path=logged.artifact_location, run_id=run, model_id=logged.model_id),
            signature=infer_signature(example, shown),
            input_example=example,
        )
        # Named, or MLflow finds them out by loading the model in yet another process.
        needed = [f"torch=={torch.__version__.partition('+')[0]}"]
        try:  # its graph: whoever loads it runs no code that comes with it, and needs none of ours
            folder = Path(there, "graph")
            save(path=folder, pip_requirements=needed, serialization_format="pt2")
        except Exception:  # a model of one's own may do what is in no graph
            folder = Path(there, "model")
            save(path=folder, pip_requirements=[*needed, f"tuner=={__version__}"], serialization_format="pickle")
        upload(folder, logged.artifact_location, "", uri)
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(run, [LoggedModelOutput(logged.model_id, said["epoch"])])
    client.log_batch(run, metrics=_linked(client, run, said["metrics"], said["epoch"], logged.model_id))
    return logged


def _linked(client: Any, run: str, metrics: Sequence[str], epoch: int, model: str) -> list[Any]:
    """Metrics of a run as ones of the model too.

    They are the very points that the run has already, which MLflow keeps once: others would bend the run's curves.
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
        raise  # a store that is away has a champion all the same


def _is_better(said: Mapping[str, Any], champion: Any | None) -> bool:
    """Whether a winner takes the champion's place: numbers of other images, or other metrics, cannot be compared."""
    if champion is None:
        return True
    tags = champion.tags
    if any(tags.get(f"tuner.{key}") != str(said[key]) for key in ("metric", "mode", "dataset")):
        return False
    if not math.isfinite(float(tags["tuner.value"])):  # an older version took that for a score
        return True
    objective = Objective(metric=said["metric"], mode=said["mode"])
    return objective.improves(said["value"], float(tags["tuner.value"]), by=0.0)
