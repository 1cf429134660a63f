"""Which keys can decide a metric at all, whatever the trials look like."""

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
}
"""Parts of a training that alone can decide a metric; all others have something to do with every part."""

_LEFT_ALONE_BY = ("data.batch_size", "data.limit", "data.seed", "data.validation")
"""Keys of these parts that are about which images are seen, and not about what the model makes of one."""

_MOST_TRIALS, _MOST_VALUES = 3, 6


def can_decide(spec: ExperimentSpec, trials: Sequence[Trial], key: str, metric: str) -> bool:
    """Whether a searched key can influence a metric: a learning rate does nothing to the number of parameters.

    Args:
        spec: The experiment.
        trials: Its trials. The number of parameters is counted with other values of the key in a few of them.
        key: A key of the space.
        metric: An objective.
    """
    if spec.trial.metrics is None or metric not in _DECIDED_BY:  # of a function of the user's own nobody knows
        return True
    if key.split(".")[0] not in _DECIDED_BY[metric] or key in _LEFT_ALONE_BY:
        return False
    return metric != "parameters" or any(_changes_count(spec, trial, key) for trial in trials[:_MOST_TRIALS])


def _changes_count(spec: ExperimentSpec, trial: Trial, key: str) -> bool:
    counts = set()
    for value in [*spec.space[key].corners()[:_MOST_VALUES], *filter(None, [configuration(trial).get(key)])]:
        with contextlib.suppress(UserError, ValidationError):  # a value that needs another beside it
            counts.add(merge(spec.trial, configuration(trial) | {key: value}).count_parameters())
    return len(counts) > 1 or None in counts  # None: only code knows that is not to be called
