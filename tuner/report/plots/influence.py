"""Which searched keys can influence a metric at all, independent of the trials' values."""

import contextlib
from collections.abc import Sequence

from pydantic import ValidationError

from tuner.errors import UserError
from tuner.report.plots.study import configuration
from tuner.spec.experiment import ExperimentSpec
from tuner.train.trial_base import merge
from tuner.trials.trial import Trial

_DECIDED_BY = {
    "parameters": ("model", "task", "data"),
    "latency_ms": ("model", "task", "data", "precision"),
    "onnx_latency_ms": ("model", "task", "data"),
}
"""Sections of a trial that alone influence a metric; every section may influence metrics that are not listed."""

_WITHOUT_INFLUENCE = ("data.batch_size", "data.limit", "data.seed", "data.validation")
"""Keys of these sections that select images, and change neither the model nor the cost of an image."""

_MAX_TRIALS, _MAX_VALUES = 3, 6


def can_decide(spec: ExperimentSpec, trials: Sequence[Trial], key: str, metric: str) -> bool:
    """Return whether a searched key can influence a metric: a learning rate does not change the number of parameters.

    Args:
        spec: The experiment.
        trials: Its trials; in a few of them the parameters are counted with other values of the key.
        key: A key of the space.
        metric: The metric of an objective.
    """
    if spec.trial.metrics is None or metric not in _DECIDED_BY:  # None: a function of the user's own
        return True
    if key.split(".")[0] not in _DECIDED_BY[metric] or key in _WITHOUT_INFLUENCE:
        return False
    return metric != "parameters" or any(_changes_count(spec, trial, key) for trial in trials[:_MAX_TRIALS])


def _changes_count(spec: ExperimentSpec, trial: Trial, key: str) -> bool:
    counts = set()
    for value in [*spec.space[key].corners()[:_MAX_VALUES], *filter(None, [configuration(trial).get(key)])]:
        with contextlib.suppress(UserError, ValidationError):  # a value that is valid only with one of another key
            counts.add(merge(spec.trial, configuration(trial) | {key: value}).count_parameters())
    return len(counts) > 1 or None in counts  # None: a model of the user's own, whose code is not called here
