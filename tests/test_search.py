from typing import Any

import pytest
from pydantic import TypeAdapter

from tuner.search import Grid, Random
from tuner.space import Choice, Space


def space(**given: Any) -> Space:
    return TypeAdapter(Space).validate_python(given)


def test_a_grid_is_every_combination_the_last_key_changing_fastest() -> None:
    plan = Grid().plan(space(b={"grid": [2, 1]}, a={"int": [0, 2]}))
    assert plan == [{"b": b, "a": a} for b in (2, 1) for a in (0, 1, 2)]


@pytest.mark.parametrize("search", [Grid(), Random(trials=1)])
def test_an_empty_space_is_one_trial_as_written(search: Grid | Random) -> None:
    assert search.plan({}) == [{}]


def test_a_grid_refuses_each_continuous_range() -> None:
    given = space(
        a={"uniform": [0, 1]}, b={"uniform": [0, 1], "step": 0.5}, c={"normal": [0, 1]}, d={"loguniform": [1, 2]}
    )
    assert [problem.key for problem in Grid().check(given)] == ["space.a", "space.c", "space.d"]
    assert list(Random().check(given)) == []


SPACE: dict[str, Any] = {"a": {"uniform": [0, 1]}, "b": {"choice": ["x", "y", "z"]}}


def test_a_longer_plan_begins_with_the_shorter_one() -> None:
    short, long = (Random(trials=trials, seed=5).plan(space(**SPACE)) for trials in (4, 9))
    assert len(long) == 9
    assert long[:4] == short


def test_another_seed_is_another_plan_and_the_same_seed_the_same() -> None:
    plans = [Random(trials=5, seed=seed).plan(space(**SPACE)) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]


def test_trials_of_a_plan_differ() -> None:
    drawn = [assignment["a"] for assignment in Random(trials=50).plan(space(**SPACE))]
    assert len(set(drawn)) == 50


def test_random_search_tries_nothing_twice_and_ends_where_a_space_does() -> None:
    space: Space = {"a": Choice(options=[1, 2, 3]), "b": Choice(options=[True, False])}
    plan = Random(trials=50).plan(space)
    assert sorted((trial["a"], trial["b"]) for trial in plan) == [(a, b) for a in (1, 2, 3) for b in (False, True)]


def test_random_search_needs_something_to_vary() -> None:
    [problem] = Random().check({})
    assert problem.key == "space"
