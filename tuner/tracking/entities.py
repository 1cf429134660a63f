"""Parameters, tags, metrics and datasets as entities of MLflow, under names that MLflow accepts."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.error_text import escaped
from tuner.tracking.names import recorded
from tuner.tracking.store import CONTEXT, TESTING

SEEN = ("train", "validation")
"""The splits that every trial uses; only the winner uses the test set."""

_CONTEXTS = {"train": "training", "validation": "validation", "test": TESTING}

_MAX_LENGTH = 6000  # characters of a parameter or a tag, by MLflow's limits


def params(params: Mapping[str, Any]) -> list[Any]:
    """Return MLflow's parameters, their values as text."""
    from mlflow.entities import Param

    return [Param(recorded(key), as_text(value)) for key, value in params.items()]


def as_text(value: Any) -> str:
    """Return the value of a parameter as it is recorded."""
    return escaped(str(value))[:_MAX_LENGTH]


def tags(tags: Mapping[str, str]) -> list[Any]:
    """Return MLflow's tags, without empty ones; long values are cut."""
    from mlflow.entities import RunTag

    return [RunTag(recorded(key), escaped(value)[:_MAX_LENGTH]) for key, value in tags.items() if value]


def metrics(metrics: Mapping[str, float], when: float, step: int | None) -> list[Any]:
    """Return MLflow's metrics for a time (seconds since 1970) and a step."""
    from mlflow.entities import Metric

    return [Metric(recorded(key), _double(value), int(when * 1000), step or 0) for key, value in metrics.items()]


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf if value > 0 else -math.inf


def dataset_inputs(data: Mapping[str, Any], splits: Sequence[str]) -> list[Any]:
    """Return MLflow's dataset inputs for the splits of a dataset, each with name, digest and size.

    Args:
        data: What `tuner.data.images.Description` has, by name; older jobs have no ``ignored``.
        splits: The splits: of ``train``, ``validation`` and ``test``.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    left_out = {"ignored": list(data["ignored"])} if data.get("ignored") else {}
    return [
        DatasetInput(
            Dataset(
                name=f"{data['name']}-{split}",
                digest=data["digest"],
                source_type="local",
                source=json.dumps({"uri": data["source"]}),
                profile=json.dumps({"num_rows": rows} | left_out),
            ),
            tags=[InputTag(CONTEXT, _CONTEXTS[split])],
        )
        for split, rows in data["sizes"].items()
        if split in splits
    ]
