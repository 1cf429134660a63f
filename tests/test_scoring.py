import math

import pytest

from tuner.scoring import Objective

HIGH, LOW = Objective.of_metric("val_accuracy"), Objective.of_metric("val_loss")


def test_a_metric_brings_its_own_direction() -> None:
    assert (HIGH.mode, LOW.mode) == ("max", "min")
    assert Objective.of_metric("val_digit_f1").mode == "max"
    with pytest.raises(AssertionError):
        Objective.of_metric("learning_rate")


@pytest.mark.parametrize(
    ("value", "best", "high", "low"),
    [
        (1.0, None, True, True),
        (2.0, 1.0, True, False),
        (1.0, 2.0, False, True),
        (1.0, 1.0, True, True),  # the later one has trained longer
        (math.nan, None, False, False),
        (math.nan, 1.0, False, False),
        (math.inf, 1.0, True, False),
    ],
)
def test_beats(value: float, best: float | None, high: bool, low: bool) -> None:
    assert (HIGH.beats(value, best), LOW.beats(value, best)) == (high, low)


@pytest.mark.parametrize(
    ("value", "best", "high", "low"),
    [
        (1.0, None, True, True),
        (1.0, 1.0, False, False),
        (1.5, 1.0, False, False),  # better, but by no more than 0.5
        (1.75, 1.0, True, False),
        (0.25, 1.0, False, True),
        (math.nan, None, False, False),
    ],
)
def test_improves_by_more_than_a_half(value: float, best: float | None, high: bool, low: bool) -> None:
    assert (HIGH.improves(value, best, by=0.5), LOW.improves(value, best, by=0.5)) == (high, low)


def test_the_best_value_sorts_first() -> None:
    assert sorted([0.2, 0.9, 0.5], key=HIGH.key) == [0.9, 0.5, 0.2]
    assert sorted([0.2, 0.9, 0.5], key=LOW.key) == [0.2, 0.5, 0.9]


def test_its_value_in_a_report() -> None:
    assert HIGH.of({"val_accuracy": 1, "val_loss": 3.0}) == 1.0
    assert HIGH.of({"val_loss": 3.0}) is None
