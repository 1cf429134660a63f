"""What a Gaussian process is shown."""

from typing import Any

import numpy as np
import pytest
from optuna.samplers import GPSampler
from optuna.trial import create_trial

from tuner.search.warped_gp import WarpedGPSampler, warp


@pytest.mark.parametrize("sign", [1, -1])
def test_a_long_tail_is_drawn_in_and_the_order_stays(sign: int) -> None:
    values = sign * np.exp(np.random.default_rng(0).normal(0, 2, 200))
    warped = warp(values)
    np.testing.assert_array_equal(np.argsort(warped), np.argsort(values))
    np.testing.assert_allclose([warped.mean(), warped.std()], [0, 1], atol=1e-9)
    assert np.abs(warped).max() < 4 < np.abs((values - values.mean()) / values.std()).max()


def test_what_is_normal_already_stays_much_as_it_is() -> None:
    values = np.random.default_rng(0).normal(5, 3, 300)
    assert np.corrcoef(warp(values), values)[0, 1] > 0.999


@pytest.mark.parametrize("values", [[0.9], [0.0, 0.0], [0.1, 0.1 + 1e-16], [1e300, 1e300]])
def test_where_all_are_the_same_there_is_nothing_to_tell(values: list[float]) -> None:
    np.testing.assert_array_equal(warp(np.array(values)), np.zeros(len(values)))


@pytest.mark.parametrize("values", [[0.0, 1e-9, 2e-9], [1e9, 1e9 + 1, 3e9], [0.1] * 20 + [0.9], [1e-300, 1e300, 0.0]])
def test_any_scale_will_do(values: list[float]) -> None:
    warped = warp(np.array(values))
    assert np.isfinite(warped).all()
    assert np.argmax(warped) == np.argmax(values)


@pytest.mark.parametrize(("objectives", "is_warped"), [(1, True), (2, False)])
def test_the_sampler_sees_them_so(monkeypatch: pytest.MonkeyPatch, objectives: int, is_warped: bool) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(GPSampler, "_sample_relative_impl", lambda self, study, done, *others: seen.append(done))

    class Study:
        directions = ["max"] * objectives

    trials = [create_trial(values=[value] * objectives) for value in (1.0, 10.0, 1000.0)]
    WarpedGPSampler()._sample_relative_impl(Study(), trials, [], {})
    values = np.array([trial.values[0] for trial in seen[0]])
    assert np.allclose(values, warp(np.array([1.0, 10.0, 1000.0]))) == is_warped
    assert [trial.values[0] for trial in trials] == [1.0, 10.0, 1000.0]
