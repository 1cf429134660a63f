import math

import pytest

from tuner.objectives import Objective, pareto_front, why_undefined

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
        (math.inf, 1.0, False, False),
        (-math.inf, 1.0, False, False),
        (math.inf, None, False, False),
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
        (math.inf, None, False, False),
        (-math.inf, 1.0, False, False),
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


def test_what_a_set_lacks_for_a_metric() -> None:
    name = "val_ema_box_map_large"
    assert why_undefined(name, {name: math.nan}) == "no object of more than 96x96 pixels of the resized images"
    assert why_undefined(name, {name: 0.0}) == why_undefined("val_miou", {"val_miou": math.nan}) == ""


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_what_is_not_finite_is_no_score(value: float) -> None:
    assert HIGH.of({"val_accuracy": value}) is None
    assert HIGH.not_finite({"val_accuracy": value}) is not None
    assert HIGH.not_finite({"val_accuracy": 1}) is HIGH.not_finite({}) is None


class TestParetoFront:
    OBJECTIVES = (Objective(metric="val_accuracy", mode="max"), Objective(metric="parameters", mode="min"))

    @pytest.mark.parametrize(
        ("points", "front"),
        [
            ([], []),
            ([(0.9, 100)], [True]),
            ([(0.9, 100), (0.8, 50)], [True, True]),  # better in one each
            ([(0.9, 100), (0.8, 100)], [True, False]),
            ([(0.9, 100), (0.9, 50)], [False, True]),
            ([(0.9, 100), (0.8, 200)], [True, False]),
            ([(0.9, 100), (0.9, 100), (0.1, 1)], [True, True, True]),  # equals do not beat each other
            ([(0.5, 50), (0.9, 100), (0.7, 20), (0.7, 30)], [False, True, True, False]),
        ],
    )
    def test_no_other_is_as_good_in_every_objective_and_better_in_one(
        self, points: list[tuple[float, float]], front: list[bool]
    ) -> None:
        assert pareto_front(points, self.OBJECTIVES) == front

    def test_of_one_objective_are_the_best(self) -> None:
        assert pareto_front([(3.0,), (1.0,), (1.0,)], [LOW]) == [False, True, True]

    def test_the_order_of_the_points_changes_nothing(self) -> None:
        points = [(0.1 * (i * 7 % 10), float(i * 3 % 10)) for i in range(10)]
        there = pareto_front(points, self.OBJECTIVES)
        back = pareto_front(points[::-1], self.OBJECTIVES)[::-1]
        assert there == back and any(there) and not all(there)
