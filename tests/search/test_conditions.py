from itertools import combinations as pairs
from itertools import product
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from tuner.config_keys import Assignment
from tuner.search.conditions import (
    activating_values,
    check_conditions,
    combinations,
    corners,
    dependency_order,
    draw,
    is_active,
)
from tuner.search.space import Space


def space(given: dict[str, Any]) -> Space:
    return TypeAdapter(Space).validate_python(given)


KINDS = space(
    {
        "momentum": {"uniform": [0, 0.9], "when": {"kind": "sgd"}},
        "nesterov": {"choice": [False, True], "when": {"kind": "sgd"}},
        "beta1": {"uniform": [0.8, 0.99], "when": {"kind": ["adam", "adamw"]}},
        "decay": {"loguniform": [1e-5, 1e-2], "when": {"kind": "adamw", "depth": [2, 3]}},
        "kind": {"choice": ["sgd", "adam", "adamw"]},
        "depth": {"int": [1, 3]},
        "deep": {"grid": [1, 2], "when": {"decay_kind": "x"}},
        "decay_kind": {"choice": ["x", "y"], "when": {"kind": "adam"}},
    }
)
"""Keys that hang on others that stand behind them, on several values, on two keys, and on one that hangs itself."""


def drawn(seed: int) -> Assignment:
    rng = np.random.default_rng(seed)
    return draw(KINDS, lambda name, distribution: distribution.sample(rng))


def test_a_key_comes_after_those_that_it_depends_on_and_else_as_it_stands() -> None:
    assert dependency_order(KINDS) == ["kind", "momentum", "nesterov", "beta1", "depth", "decay", "decay_kind", "deep"]


def test_a_key_counts_where_every_condition_of_it_holds() -> None:
    assert is_active(KINDS, "decay", {"kind": "adamw", "depth": 2})
    assert not is_active(KINDS, "decay", {"kind": "adamw", "depth": 1})
    assert not is_active(KINDS, "decay", {"kind": "adamw"})
    assert is_active(KINDS, "kind", {})


def test_a_drawn_configuration_has_the_keys_that_count_and_no_others_in_the_order_of_the_space() -> None:
    seen = set()
    for seed in range(200):
        assignment = drawn(seed)
        seen.add(tuple(assignment))
        assert list(assignment) == [name for name in KINDS if name in assignment]
        for name in KINDS:
            assert (name in assignment) == is_active(KINDS, name, assignment)
    assert seen == {
        ("momentum", "nesterov", "kind", "depth"),
        ("beta1", "kind", "depth", "deep", "decay_kind"),
        ("beta1", "kind", "depth", "decay_kind"),
        ("beta1", "decay", "kind", "depth"),
        ("beta1", "kind", "depth"),
    }


def test_only_keys_that_count_are_asked_for() -> None:
    asked: list[str] = []

    def value(name: str, _: Any) -> Any:
        asked.append(name)
        return {"kind": "sgd", "depth": 1}.get(name, 0)

    draw(KINDS, value)
    assert asked == ["kind", "momentum", "nesterov", "depth"]


def test_what_a_key_needs_is_what_makes_it_count() -> None:
    assert activating_values(KINDS, "deep") == {"kind": "adam", "decay_kind": "x"}
    assert activating_values(KINDS, "decay") == {"kind": "adamw", "depth": 2}
    assert activating_values(KINDS, "kind") == {}
    for name in KINDS:
        assert is_active(KINDS, name, activating_values(KINDS, name))


def test_every_combination_of_a_conditional_space_comes_once() -> None:
    given = space({"a": {"grid": [1, 2], "when": {"kind": "x"}}, "kind": {"grid": ["x", "y"]}, "b": {"grid": [0, 1]}})
    assert list(combinations(given)) == [
        *({"a": a, "kind": "x", "b": b} for a, b in product((1, 2), (0, 1))),
        *({"kind": "y", "b": b} for b in (0, 1)),
    ]


def test_combinations_of_billions_are_not_listed() -> None:
    given = space({"seed": {"int": [0, 2**62]}, "b": {"grid": [1, 2]}})
    assert next(combinations(given)) == {"seed": 0, "b": 1}


class TestCorners:
    def test_are_all_combinations_of_ends_and_choices(self) -> None:
        given = space({"a": {"uniform": [0, 1]}, "b": {"choice": ["x", "y", "z"]}})
        assert list(corners(given)) == [{"a": a, "b": b} for a, b in product((0.0, 1.0), "xyz")]

    def test_come_once_where_keys_do_not_count(self) -> None:
        found = [repr(corner) for corner in corners(KINDS)]
        assert len(found) == len(set(found))
        for assignment in corners(KINDS):
            assert all((name in assignment) == is_active(KINDS, name, assignment) for name in KINDS)

    def test_a_value_that_a_condition_waits_for_is_one(self) -> None:
        given = space({"depth": {"int": [1, 9]}, "wide": {"uniform": [0, 1], "when": {"depth": 5}}})
        assert list(corners(given)) == [{"depth": 1}, {"depth": 9}, {"depth": 5, "wide": 0}, {"depth": 5, "wide": 1}]

    def test_of_an_empty_space_are_the_trial_as_it_stands(self) -> None:
        assert list(corners({})) == [{}]

    def test_of_many_keys_hold_every_pair_of_values(self) -> None:
        plain: dict[str, Any] = {f"k{i}": {"choice": [0, 1, 2]} for i in range(8)}
        chain: dict[str, Any] = {
            "kind": {"choice": ["x", "y", "z"]},
            "of_y": {"choice": [0, 1], "when": {"kind": "y"}},
            "below": {"uniform": [0, 1], "when": {"of_y": 1}},
        }
        given = space(plain | chain)
        found = list(corners(given))
        assert len(found) < 3**8
        stand_together = {
            (one, other, corner[one], corner[other]) for corner in found for one, other in pairs(corner, 2)
        }
        for one, other in pairs(plain, 2):
            assert {(one, other, a, b) for a, b in product(range(3), range(3))} <= stand_together
        for name in plain:  # and with those that count only behind a kind that is at no end
            assert {(name, "below", a, b) for a, b in product(range(3), (0.0, 1.0))} <= stand_together

    @pytest.mark.slow
    def test_of_one_key_with_very_many_values_are_all_of_them(self) -> None:
        assert len(list(corners(space({"a": {"grid": list(range(5000))}})))) == 5000


class TestChecks:
    def test_what_is_right_brings_no_problem(self) -> None:
        assert list(check_conditions(KINDS)) == []

    @pytest.mark.parametrize(
        ("given", "key", "words"),
        [
            (
                {"a": {"grid": [1], "when": {"kidn": "x"}}, "kind": {"grid": ["x"]}},
                "space.a.when.kidn",
                ("is not searched", "did you mean kind?"),
            ),
            (
                {"a": {"grid": [1], "when": {"kind": ["x", "z"]}}, "kind": {"grid": ["x", "y"]}},
                "space.a.when.kind",
                ("kind never takes this value: 'z' is not one of ['x', 'y']",),
            ),
            (
                {"a": {"grid": [1], "when": {"kind": []}}, "kind": {"grid": ["x"]}},
                "space.a.when.kind",
                ("lists no value", "leave the condition out"),
            ),
            (
                {"a": {"grid": [1], "when": {"b": 0.5}}, "b": {"uniform": [0, 1]}},
                "space.a.when.b",
                ("b is continuous: it never equals 0.5 exactly", "a choice, a grid or whole numbers"),
            ),
            (
                {"a": {"grid": [1], "when": {"b": 2}}, "b": {"grid": [2], "when": {"a": 1}}, "c": {"grid": [1]}},
                "space",
                ("cycle: a -> b -> a", "leave one of them out"),
            ),
            ({"a": {"grid": [1], "when": {"a": 1}}}, "space", ("cycle: a -> a",)),
            (
                {"a": {"grid": [1], "when": {"seed": -1}}, "seed": {"int": [0, 2**62]}},
                "space.a.when.seed",
                ("never takes this value: -1 is outside",),
            ),
        ],
    )
    def test_what_is_wrong_is_told_at_its_key(self, given: dict[str, Any], key: str, words: tuple[str, ...]) -> None:
        [problem] = check_conditions(space(given))
        assert problem.key == key
        for each in words:
            assert each in str(problem)

    def test_a_condition_may_wait_for_a_number_of_a_range_in_steps(self) -> None:
        given = space({"a": {"grid": [1], "when": {"b": 0.3}}, "b": {"uniform": [0, 1], "step": 0.1}})
        assert list(check_conditions(given)) == []
        assert sum("a" in assignment for assignment in combinations(given)) == 1
