"""What a learning-rate range test proposes, of curves that are given."""

import math
import random

import pytest

from tuner.train.fitting.lr_curve import Curve

RATES = [1e-6 * 10 ** (7 * step / 299) for step in range(300)]


def curve_of(steepest: float, lowest: float, noise: float = 0.02) -> Curve:
    """A loss that falls from 2.3 to 0.3, steepest at one rate, and grows beyond another."""
    draw = random.Random(0)
    losses = []
    for rate in RATES:
        fallen = 2.3 - 2 / (1 + math.exp(-6 * math.log10(rate / steepest)))
        losses.append(fallen + (rate / lowest) ** 3 * 0.05 + draw.gauss(0, noise))
    return Curve(RATES, losses)


@pytest.mark.parametrize("steepest", [3e-4, 1e-2, 0.3])
def test_the_steepest_descent(steepest: float) -> None:
    proposal = curve_of(steepest, lowest=3 * steepest).propose()
    assert proposal.lr == pytest.approx(steepest, rel=0.4)
    assert proposal.lr == pytest.approx(proposal.steepest, rel=0.05)
    assert proposal.lowest is not None and "more than a tenth" in proposal.why


def test_a_tenth_of_the_rate_with_the_lowest_loss_if_that_is_more() -> None:
    losses = [2.3 - min(2.0, 0.9 * max(0.0, math.log10(rate / 1e-4))) if rate < 0.2 else 9.0 for rate in RATES]
    losses = [loss - (0.8 if rate > 2e-4 else 0) for rate, loss in zip(RATES, losses, strict=True)]
    proposal = Curve(RATES, losses, exploded=True).propose()
    assert proposal.lr is not None and proposal.steepest is not None and proposal.lowest is not None
    assert proposal.steepest < proposal.lowest / 10 == pytest.approx(proposal.lr, rel=0.05)
    assert "a tenth of the latter" in proposal.why


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.3])
def test_a_loss_that_falls_nowhere(noise: float) -> None:
    draw = random.Random(1)
    losses = [2.3 + draw.gauss(0, noise) + (100 if rate > 1 else 0) for rate in RATES]
    proposal = Curve(RATES, losses).propose()
    assert proposal.lr is None and "falls at no learning rate" in proposal.why


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_a_loss_that_explodes_at_once(steps: int) -> None:
    proposal = Curve(RATES[:steps], [2.0] * steps, exploded=True).propose()
    assert proposal.lr is None and f"after {steps} steps" in proposal.why


def test_smoothing_leaves_a_line_as_it_is() -> None:
    losses = [1 + math.log10(rate) for rate in RATES]
    smoothed = Curve(RATES, losses).smoothed
    assert smoothed[100:200] == pytest.approx(losses[100:200], abs=1e-6)
