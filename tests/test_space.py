import math
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from tuner.space import DISTRIBUTIONS, Distribution, Grid

DRAWS = 2000

EXAMPLES: dict[str, dict[str, Any]] = {
    "grid": {"grid": [3, "a", None]},
    "choice": {"choice": [0.1, 0.2]},
    "uniform": {"uniform": [-1, 2]},
    "uniform in steps": {"uniform": [0, 0.3], "step": 0.1},
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
    assert found == values
    if values is not None:
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
    seeds = build({"int": [0, 2**62]})
    assert seeds.corners() == [0, 2**62]
    assert len(set(draws({"int": [0, 2**62]}))) == DRAWS
    assert len(set(draws({"logint": [1, 2**50]}))) > DRAWS / 2


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
    with pytest.raises(ValidationError, match=r"0\.1 stands twice"):
        Grid(options=[0.1, 0.2, 0.1])
