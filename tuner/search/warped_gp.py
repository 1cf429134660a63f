"""Optuna's Gaussian process sampler with output warping."""

import copy
from typing import Any

import numpy as np
from optuna.samplers import GPSampler

Values = np.ndarray[Any, np.dtype[np.float64]]


def warp(values: Values) -> Values:
    """Transform the values of an objective to a nearly normal distribution (Yeo and Johnson, 2000).

    Most searches have a few very bad configurations and many good ones that are nearly equal. Without the transform a
    Gaussian process explains the difference between the two and cannot distinguish the good ones. The order of the
    values is preserved (Cowen-Rivers et al., 2022: output warping).

    Args:
        values: Finite values (trials,).

    Returns:
        Values (trials,) with mean 0 and standard deviation 1; zeros if all values are equal.
    """
    from scipy.stats import yeojohnson

    values = values / (np.abs(values).max(initial=0) or 1.0)
    spread = values.std()
    if not spread > 1e-12:
        return np.zeros_like(values)
    transformed, _ = yeojohnson((values - values.mean()) / spread)
    if not (np.isfinite(transformed).all() and transformed.std() > 0):
        return values
    return np.asarray((transformed - transformed.mean()) / transformed.std())


class WarpedGPSampler(GPSampler):
    """A `GPSampler` that applies `warp` to the values of a single objective."""

    def _sample_relative_impl(self, study: Any, completed: list[Any], running: Any, space: Any) -> Any:
        if len(study.directions) == 1:
            values = warp(np.array([trial.value for trial in completed], dtype=np.float64))
            completed = [copy.copy(trial) for trial in completed]
            for trial, value in zip(completed, values, strict=True):
                trial.value = float(value)
        return super()._sample_relative_impl(study, completed, running, space)
