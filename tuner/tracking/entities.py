"""Our values as entities of MLflow, under the names that it takes."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.error_text import escaped
from tuner.tracking.names import recorded
from tuner.tracking.store import CONTEXT, TESTING

SEEN = ("train", "validation")
"""The sets of a dataset that every trial sees; the test set is for the winner."""

_CONTEXTS = {"train": "training", "validation": "validation", "test": TESTING}

_LONGEST = 6000  # characters of a parameter or a tag, by MLflow's limits


def params(params: Mapping[str, Any]) -> list[Any]:
    """Parameters under the names that MLflow takes, their values as text."""
    from mlflow.entities import Param

    return [Param(recorded(key), as_text(value)) for key, value in params.items()]


def as_text(value: Any) -> str:
    """The value of a parameter as it is recorded."""
    return escaped(str(value))[:_LONGEST]


def tags(tags: Mapping[str, str]) -> list[Any]:
    """Tags under the names that MLflow takes; those without a value are left out, and of long ones the end."""
    from mlflow.entities import RunTag

    return [RunTag(recorded(key), escaped(value)[:_LONGEST]) for key, value in tags.items() if value]


def metrics(metrics: Mapping[str, float], when: float, step: int | None) -> list[Any]:
    """Metrics measured at a time (seconds since the epoch) and a step, under the names that MLflow takes."""
    from mlflow.entities import Metric

    return [Metric(recorded(key), _double(value), int(when * 1000), step or 0) for key, value in metrics.items()]


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf if value > 0 else -math.inf


def dataset_inputs(data: Mapping[str, Any], parts: Sequence[str]) -> list[Any]:
    """Sets of a dataset by their true name, each with its digest and size.

    Args:
        data: ``name``, ``digest``, ``source``, and ``sizes``: images by the name of the set.
        parts: Which sets: of ``train``, ``validation`` and ``test``.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(
            Dataset(
                name=f"{data['name']}-{part}",
                digest=data["digest"],
                source_type="local",
                source=json.dumps({"uri": data["source"]}),
                profile=json.dumps({"num_rows": rows}),
            ),
            tags=[InputTag(CONTEXT, _CONTEXTS[part])],
        )
        for part, rows in data["sizes"].items()
        if part in parts
    ]
