"""Configurations near another."""

from typing import Any

import numpy as np
from pydantic import TypeAdapter

from tuner.search.neighbourhood import neighbours, towards
from tuner.search.space import Space

SPACE: Space = TypeAdapter(Space).validate_python(
    {
        "kind": {"choice": ["sgd", "adam", "rms"]},
        "width": {"grid": [8, 16, 32, 64]},
        "layers": {"int": [1, 9], "step": 2},
        "lr": {"loguniform": [0.0001, 1.0]},
        "momentum": {"uniform": [0.0, 1.0], "when": {"kind": "sgd"}},
    }
)
SGD: dict[str, Any] = {"kind": "sgd", "width": 8, "layers": 5, "lr": 0.01, "momentum": 0.5}
ADAM: dict[str, Any] = {"kind": "adam", "width": 64, "layers": 9, "lr": 1.0}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_beside_is_one_step_in_one_key_and_no_step_in_a_continuum() -> None:
    near = list(neighbours(SPACE, SGD, rng()))
    moved = sorted((key, each.get(key)) for each in near for key in SGD if each.get(key, SGD[key]) != SGD[key])
    assert moved == [("kind", "adam"), ("kind", "rms"), ("layers", 3), ("layers", 7), ("width", 16)]
    assert all("momentum" not in each for each in near if each["kind"] != "sgd")


def test_beside_draws_what_begins_to_count() -> None:
    [sgd] = [each for each in neighbours(SPACE, ADAM, rng()) if each["kind"] == "sgd"]
    assert 0 <= sgd.pop("momentum") <= 1
    assert sgd == ADAM | {"kind": "sgd"}


def test_towards_comes_from_the_far_end_and_keeps_the_choices_of_the_near_one() -> None:
    way = list(towards(SPACE, SGD, ADAM, rng()))
    assert {each["kind"] for each in way} == {"sgd"}
    assert [each["momentum"] for each in way] == [0.5] * 4
    assert [each["layers"] for each in way] == sorted((each["layers"] for each in way), reverse=True)
    np.testing.assert_allclose([each["lr"] for each in way], [10**-0.5, 10**-1.0, 10**-1.5, 10**-1.8])
