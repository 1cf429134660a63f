import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from tuner.search.conditions import combinations
from tuner.search.distributions import Grid
from tuner.search.encoding import Axis
from tuner.search.space import DISTRIBUTIONS, Distribution

DRAWS = 2000

EXAMPLES: dict[str, dict[str, Any]] = {
    "grid": {"grid": [3, "a", None]},
    "choice": {"choice": [0.1, 0.2]},
    "choice in order": {"choice": [8, 16, 64]},
    "uniform": {"uniform": [-1, 2]},
    "uniform in steps": {"uniform": [0, 0.3], "step": 0.1},
    "uniform in steps that do not go up": {"uniform": [0, 1], "step": 0.4},
    "loguniform": {"loguniform": [1e-4, 1]},
    "loguniform in steps": {"loguniform": [0.1, 1.05], "step": 0.1},
    "int": {"int": [-2, 3]},
    "int in steps": {"int": [1, 10], "step": 4},
    "logint": {"logint": [1, 100]},
    "logint in steps": {"logint": [8, 100], "step": 8},
    "normal": {"normal": [1, 0.5]},
    "normal in steps": {"normal": [0, 1], "step": 0.25},
}


def build(given: Any) -> Any:
    return TypeAdapter(Distribution).validate_python(given)


def draws(given: Any, count: int = DRAWS) -> list[Any]:
    distribution, rng = build(given), np.random.default_rng(0)
    return [distribution.sample(rng) for _ in range(count)]


def is_near(one: Any, other: Any) -> bool:
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9) if isinstance(one, float) else bool(one == other)


def test_each_distribution_has_an_example() -> None:
    assert {next(iter(given)) for given in EXAMPLES.values()} == set(DISTRIBUTIONS)


@pytest.mark.parametrize("given", EXAMPLES.values(), ids=EXAMPLES)
class TestContract:
    def test_it_is_named_by_its_key_and_written_back_the_same(self, given: dict[str, Any]) -> None:
        distribution = build(given)
        written = distribution.model_dump(mode="json", exclude_none=True)
        assert next(iter(given)) in written
        assert build(written) == distribution

    def test_draws_lie_between_its_corners(self, given: dict[str, Any]) -> None:
        corners = build(given).corners()
        if next(iter(given)) in ("grid", "choice"):
            assert set(draws(given)) == set(corners)
        else:
            assert corners[0] <= min(draws(given)) < max(draws(given)) <= corners[-1]

    def test_draws_are_among_its_values_and_every_value_comes(self, given: dict[str, Any]) -> None:
        values = build(given).values()
        if values is None:
            assert len(set(draws(given))) > len(given)
            if "step" not in given:
                assert len(set(draws(given))) == DRAWS  # a continuum
        else:
            assert set(draws(given)) == set(values)

    def test_the_same_generator_draws_the_same(self, given: dict[str, Any]) -> None:
        assert draws(given, 20) == draws(given, 20)

    def test_draws_are_plain_values(self, given: dict[str, Any]) -> None:
        assert {type(value) for value in draws(given)} <= {int, float, str, type(None)}

    def test_a_value_has_a_number_of_the_axis_and_comes_back_from_it(self, given: dict[str, Any]) -> None:
        distribution = build(given)
        axis = distribution.axis()
        for value in (*draws(given, 200), *distribution.corners()):
            number = distribution.encode(value)
            assert axis.low <= number <= axis.high
            assert 0 <= axis.unit(number) <= 1
            assert is_near(distribution.decode(number), value)
            assert type(distribution.decode(number)) is type(value)

    def test_every_part_of_the_axis_stands_for_a_value_inside(self, given: dict[str, Any]) -> None:
        distribution = build(given)
        axis = distribution.axis()
        numbers = [axis.at(i / 500) for i in range(501)]
        assert numbers == sorted(numbers)
        assert (numbers[0], numbers[-1]) == pytest.approx((axis.low, axis.high))
        found = [distribution.decode(number) for number in numbers]
        for value in found:
            distribution.encode(value)  # raises outside
        assert is_near(found[0], distribution.corners()[0]) and is_near(found[-1], distribution.corners()[-1])
        if distribution.values() is not None:
            assert set(found) == set(distribution.values())
        if axis.kind == "real" and axis.step is None:
            assert [axis.unit(number) for number in numbers] == pytest.approx([i / 500 for i in range(501)])

    def test_a_moved_value_stays_inside(self, given: dict[str, Any]) -> None:
        distribution = build(given)
        for value in (*draws(given, 50), *distribution.corners()):
            for factor in (0.01, 0.8, 1.2, 100.0):
                moved = distribution.perturbed(value, factor)
                distribution.encode(moved)  # raises outside
                assert type(moved) is type(value) or type(value) is int or value is None or type(value) is str


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"grid": [0.1, 0.01]}, [0.1, 0.01]),
        ({"choice": ["b", "a"]}, ["b", "a"]),
        ({"uniform": [0, 1]}, None),
        ({"uniform": [2, 2]}, [2.0]),
        ({"uniform": [0, 0.3], "step": 0.1}, [0.0, 0.1, 0.2, 0.3]),
        ({"uniform": [0, 1], "step": 0.4}, [0.0, 0.4, 0.8]),
        ({"loguniform": [1, 10]}, None),
        ({"int": [1, 4]}, [1, 2, 3, 4]),
        ({"int": [1, 8], "step": 3}, [1, 4, 7]),
        ({"logint": [16, 64], "step": 16}, [16, 32, 48, 64]),
        ({"normal": [0, 1]}, None),
    ],
)
def test_values(given: dict[str, Any], values: list[Any] | None) -> None:
    found = build(given).values()
    if values is None:
        assert found is None
    else:
        assert list(found) == values
        assert [type(value) for value in found] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("given", "corners"),
    [
        ({"grid": [3, 1, 2]}, [3, 1, 2]),
        ({"uniform": [0, 1], "step": 0.4}, [0.0, 0.8]),
        ({"loguniform": [1e-4, 1]}, [1e-4, 1.0]),
        ({"int": [1, 8], "step": 3}, [1, 7]),
        ({"normal": [1, 0.5]}, [-1.0, 3.0]),
        ({"normal": [0, 1], "step": 1.5}, [-3.0, 3.0]),
        ({"normal": [0, 1], "step": 0.3}, [-3.9, 3.9]),
        ({"uniform": [0, 1], "step": 1e-9}, [0.0, 1.0]),  # and no list of a billion of them
        ({"int": [0, 2**63 - 1]}, [0, 2**63 - 1]),
    ],
)
def test_corners(given: dict[str, Any], corners: list[Any]) -> None:
    assert build(given).corners() == corners


@pytest.mark.parametrize(
    ("given", "middle"),
    [
        ({"uniform": [0, 100]}, 50),
        ({"loguniform": [0.01, 100]}, 1),  # half of the draws in each half of the orders of magnitude
        ({"logint": [1, 10_000]}, 100),
        ({"normal": [7, 2]}, 7),
    ],
)
def test_half_of_the_draws_lie_below_the_middle(given: dict[str, Any], middle: float) -> None:
    below = sum(value < middle for value in draws(given)) / DRAWS
    assert abs(below - 0.5) < 4 * math.sqrt(0.25 / DRAWS)  # four standard deviations


def test_a_whole_number_on_a_log_scale_comes_as_often_as_its_share_of_the_scale() -> None:
    ones = sum(value == 1 for value in draws({"logint": [1, 3]})) / DRAWS
    assert abs(ones - math.log(3) / math.log(7)) < 4 * math.sqrt(0.25 / DRAWS)  # [0.5, 1.5] of [0.5, 3.5]


def test_a_range_of_billions_is_drawn_from_and_never_listed() -> None:
    assert len(set(draws({"int": [0, 2**63 - 1]}))) == DRAWS
    assert len(set(draws({"logint": [1, 2**50]}))) > DRAWS / 2
    assert len(build({"int": [0, 2**62]}).values()) == 2**62 + 1


@pytest.mark.parametrize("given", [{"int": [0, 2**63 - 1]}, {"logint": [1, 2**62]}, {"uniform": [2, 2]}])
def test_whatever_a_sampler_says_is_inside(given: dict[str, Any]) -> None:
    distribution = build(given)
    axis = distribution.axis()
    low, high = distribution.corners()
    for number in (axis.low, axis.at(0), axis.at(0.3), axis.at(1), axis.high):
        assert low <= distribution.decode(float(number)) <= high
    assert distribution.decode(distribution.encode(low)) == low
    assert all(low <= distribution.perturbed(value, factor) <= high for value in (low, high) for factor in (0.5, 2))


class TestAxis:
    """What a sampler sees of a distribution."""

    @pytest.mark.parametrize(
        ("given", "axis"),
        [
            ({"grid": ["a", "b"]}, Axis("category", 0, 1)),
            ({"choice": [8, 16]}, Axis("category", 0, 1)),  # between two there is no order
            ({"choice": [8, 16, 32]}, Axis("integer", 0, 2)),
            ({"choice": [32, 16, 8]}, Axis("integer", 0, 2)),
            ({"choice": [8, 32, 16]}, Axis("category", 0, 2)),
            ({"choice": [8, 16, 16]}, Axis("category", 0, 2)),
            ({"choice": [False, True, 2]}, Axis("category", 0, 2)),
            ({"uniform": [0, 1]}, Axis("real", 0.0, 1.0)),
            ({"uniform": [0, 1], "step": 0.4}, Axis("real", 0.0, 0.8, step=0.4)),
            ({"loguniform": [1e-4, 1]}, Axis("real", 1e-4, 1.0, log=True)),
            ({"int": [1, 8], "step": 3}, Axis("integer", 1, 7, step=3)),
            ({"logint": [1, 8]}, Axis("integer", 1, 8, log=True)),
            # Some samplers list what is between: from there on it is a continuum to them, and rounded.
            ({"int": [0, 2**63 - 1]}, Axis("real", 0, 2**63 - 1)),
            ({"logint": [1, 10**6]}, Axis("real", 1, 10**6, log=True)),
            ({"uniform": [0, 1], "step": 1e-6}, Axis("real", 0.0, 1.0)),
        ],
    )
    def test_of_a_distribution(self, given: dict[str, Any], axis: Axis) -> None:
        assert build(given).axis() == axis

    def test_of_a_normal_distribution_are_its_quantiles(self) -> None:
        axis = build({"normal": [3, 2]}).axis()
        assert axis.low == pytest.approx(3.17e-5, rel=0.01) and axis.high == pytest.approx(1 - 3.17e-5)

    @pytest.mark.parametrize(
        ("axis", "middle"),
        [
            (Axis("real", 2, 4), 3),
            (Axis("real", 0.01, 100, log=True), 1),
            (Axis("integer", 0, 4), 2),
            (Axis("integer", 1, 100, log=True), 7),  # of [0.5, 100.5]
        ],
    )
    def test_half_of_it_lies_below_its_middle(self, axis: Axis, middle: float) -> None:
        assert axis.at(0.5) == pytest.approx(middle)

    @pytest.mark.parametrize(
        "axis", [Axis("category", 0, 3), Axis("integer", 2, 11, step=3), Axis("real", 0.1, 0.4, step=0.1)]
    )
    def test_each_of_four_numbers_has_a_quarter_of_it(self, axis: Axis) -> None:
        shares = Counter(round(axis.at((i + 0.5) / 400), 9) for i in range(400))
        assert list(shares.values()) == [100, 100, 100, 100]

    def test_a_range_of_one_number_lies_in_the_middle(self) -> None:
        assert Axis("real", 3, 3).unit(3) == 0.5
        assert Axis("integer", 1, 1, log=True).unit(1) == 0.5


@pytest.mark.parametrize(
    ("given", "value", "words"),
    [
        ({"grid": [1, 2]}, 3, "not one of"),
        ({"uniform": [0, 1]}, 1.5, "outside"),
        ({"uniform": [0, 1]}, "0.5", "outside"),
        ({"uniform": [0, 1]}, True, "outside"),
        ({"uniform": [0, 1]}, math.nan, "outside"),
        ({"uniform": [0, 1], "step": 0.25}, 0.3, "0 plus a multiple of 0.25"),
        ({"loguniform": [0.1, 1]}, 0.0, "outside"),
        ({"int": [0, 10]}, 3.0, "not a whole number"),
        ({"int": [0, 10**12], "step": 2}, 10**12 - 1, "in steps of 2"),
        ({"logint": [1, 10]}, 11, "outside"),
        ({"normal": [0, 1]}, 5, "four standard deviations"),
        ({"normal": [1, 1], "step": 0.5}, 1.2, "1 plus a multiple of 0.5"),
    ],
)
def test_a_value_outside_has_no_number(given: dict[str, Any], value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(given).encode(value)


@pytest.mark.parametrize(
    ("given", "value", "up", "down"),
    [
        ({"uniform": [0, 10]}, 5.0, 6.0, 4.0),
        ({"uniform": [0, 10]}, 9.0, 10.0, 7.2),  # and no further than its end
        ({"uniform": [0, 10], "step": 2.5}, 5.0, 5.0, 5.0),
        ({"loguniform": [1e-3, 1]}, 0.1, 0.12, 0.08),
        ({"int": [1, 100]}, 10, 12, 8),
        ({"int": [1, 10]}, 10, 10, 8),
        ({"normal": [0, 1]}, 1.0, 1.2, 0.8),
        ({"grid": ["a", "b", "c"]}, "b", "c", "a"),
        ({"choice": [8, 16]}, 16, 16, 8),
    ],
)
def test_a_value_moves_by_a_factor_or_to_a_neighbour(given: dict[str, Any], value: Any, up: Any, down: Any) -> None:
    distribution = build(given)
    assert distribution.perturbed(value, 1.2) == pytest.approx(up)
    assert distribution.perturbed(value, 0.8) == pytest.approx(down)
    assert type(distribution.perturbed(value, 1.2)) is type(value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"uniform": [2, 1]}, "low <= high must hold"),
        ({"int": [2, 1]}, "low <= high must hold"),
        ({"loguniform": [0, 1]}, "low > 0"),
        ({"logint": [0, 5]}, "low >= 1"),
        ({"int": [0.5, 2]}, "valid integer"),
        ({"uniform": [0, math.inf]}, "finite"),
        ({"uniform": [0, 1], "step": 0}, "greater than 0"),
        ({"int": [0, 4], "step": 0}, "greater than or equal to 1"),
        ({"normal": [0, 0]}, "greater than 0"),
        ({"grid": []}, "at least 1 item"),
        ({"uniform": [1]}, "required"),
        ({"grid": [1], "choice": [1]}, "names no distribution"),
        ({"beta": [1, 2]}, "names no distribution"),
        ([1, 2], "names no distribution"),
        ({"uniform": [0, 1], "stop": 1}, "not permitted"),
    ],
)
def test_what_no_distribution_allows(given: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        build(given)


def test_a_grid_with_a_value_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"0\.1 is listed twice"):
        Grid(options=[0.1, 0.2, 0.1])


class TestValuesThatPythonHasEqual:
    """1 and 1.0 are one value; 1 and true are two."""

    def test_are_no_repetition(self) -> None:
        assert build({"grid": [0, 1, True, False, "1"]}).values() == [0, 1, True, False, "1"]
        for twice in ([1, 1.0], [True, 1, True], [[1, 2], [1.0, 2]], [{"a": 1}, {"a": 1.0}]):
            with pytest.raises(ValidationError, match="is listed twice"):
                build({"grid": twice})
        build({"grid": [[1, 2], [True, 2], {"a": 1}, {"a": True}]})

    def test_are_known_apart(self) -> None:
        grid = build({"grid": [0, 1, True]})
        assert [grid.encode(value) for value in (0, 1, True)] == [0, 1, 2]
        with pytest.raises(ValueError, match="False is not one of"):
            grid.encode(False)
        assert grid.perturbed(True, 0.5) is not True

    def test_are_conditions_of_their_own(self) -> None:
        space = {"a": build({"choice": [1, True]}), "b": build({"choice": ["x"], "when": {"a": True}})}
        assert list(combinations(space)) == [{"a": 1}, {"a": True, "b": "x"}]
