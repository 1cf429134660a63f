"""Optuna's Gaussian process, on values whose tail is drawn in."""

import copy
from typing import Any

import numpy as np
from optuna.samplers import GPSampler

Values = np.ndarray[Any, np.dtype[np.float64]]


def drawn_in(values: Values) -> Values:
    """Values of one objective by a Yeo-Johnson transform (2000) that makes them as normal as it can.

    A search meets a few configurations that are hopeless, and many that are nearly the same: a Gaussian process that
    has to explain the former is blind for the latter. The order stays. (Cowen-Rivers et al., 2022, who call it output
    warping.)

    Args:
        values: (trials,), finite.

    Returns:
        (trials,), of mean 0 and standard deviation 1; all 0 where they are all the same.
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
    """`GPSampler` that sees the values of a single objective by `drawn_in`."""

    def _sample_relative_impl(self, study: Any, completed: list[Any], running: Any, space: Any) -> Any:
        if len(study.directions) == 1:
            values = drawn_in(np.array([trial.value for trial in completed], dtype=np.float64))
            completed = [copy.copy(trial) for trial in completed]
            for trial, value in zip(completed, values, strict=True):
                trial.value = float(value)
        return super()._sample_relative_impl(study, completed, running, space)
