"""Intervals of the bootstrap, on sets whose truth is known."""

import numpy as np
import pytest
import torch

from tuner.deploy.evaluate.resampling import chance, interval, resample
from tuner.tasks import Classification
from tuner.tasks.base import TaskMeter

IMAGES = 100


def answered(right: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> TaskMeter:
    """The meter of a model that is right on these images."""
    meter = Classification().meter()
    meter.keep_samples()
    target = torch.arange(len(right)) % 2
    predicted = torch.where(torch.from_numpy(right), target, 1 - target)
    meter.update(torch.nn.functional.one_hot(predicted, 2).float(), {"label": target})
    return meter


@pytest.mark.slow
def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng, covered = np.random.default_rng(0), 0
    for number in range(100):
        meter = answered(rng.random(IMAGES) < 0.8)
        [resampled] = resample([meter], IMAGES, count=150, seed=number)
        found = interval(resampled.metrics["accuracy"])
        assert found is not None
        covered += found.low <= 0.8 <= found.high
    assert 88 <= covered <= 99


def test_draws_are_the_same_for_both_models() -> None:
    right = np.random.default_rng(1).random(IMAGES) < 0.7
    better = right | (np.arange(IMAGES) == int(np.flatnonzero(~right)[0]))
    first, second = resample([answered(better), answered(right)], IMAGES, count=60)
    gap = first.metrics["accuracy"] - second.metrics["accuracy"]
    steps = (gap * IMAGES).round()  # how often the one image on which they differ is drawn
    assert gap.min() == 0 and np.unique(steps).tolist() == list(range(round(steps.max()) + 1))
    assert interval(gap).low == 0 and chance(gap) > 0.5  # type: ignore[union-attr, operator]


def test_chance() -> None:
    assert chance(np.zeros(99)) == 1, "there is no difference"
    assert chance(np.ones(99)) == chance(-np.ones(99)) == 2 / 100, "no draw contradicts"
    assert chance(np.array([np.nan])) is None and interval(np.array([np.nan])) is None and interval(None) is None
    assert chance(np.linspace(-1, 9, 999)) == pytest.approx(0.2, abs=0.01)
