from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from tuner.config_keys import Assignment
from tuner.search.adaptive import CMAES, Bayesian, Evolution
from tuner.search.distributions import Choice
from tuner.search.planned import QMC, Grid, Random
from tuner.search.space import Space


def space(**given: Any) -> Space:
    return TypeAdapter(Space).validate_python(given)


def everything(assignment: Assignment) -> bool:
    return True


class TestGrid:
    def test_is_every_combination_the_last_key_changing_fastest(self) -> None:
        plan = Grid().plan(space(b={"grid": [2, 1]}, a={"int": [0, 2]}), everything)
        assert plan == [{"b": b, "a": a} for b in (2, 1) for a in (0, 1, 2)]

    def test_refuses_each_continuous_range(self) -> None:
        given = space(
            a={"uniform": [0, 1]}, b={"uniform": [0, 1], "step": 0.5}, c={"normal": [0, 1]}, d={"loguniform": [1, 2]}
        )
        assert [problem.key for problem in Grid().check(given)] == ["space.a", "space.c", "space.d"]
        assert list(Random().check(given)) == []

    def test_begins_with_the_initial_configurations_in_their_order(self) -> None:
        search = Grid(initial=[{"a": 2, "b": 1}, {"a": 1}])
        plan = search.plan(space(a={"grid": [0, 1, 2]}, b={"grid": [0, 1]}), everything)
        assert plan[:3] == [{"a": 2, "b": 1}, {"a": 1, "b": 0}, {"a": 1, "b": 1}]
        assert len(plan) == 6

    def test_finds_configurations_of_values_that_cannot_be_hashed(self) -> None:
        plan = Grid(initial=[{"a": {"kind": "sgd"}}]).plan(
            space(a={"grid": [{"kind": "adam"}, {"kind": "sgd"}]}), everything
        )
        assert plan == [{"a": {"kind": "sgd"}}, {"a": {"kind": "adam"}}]

    @pytest.mark.parametrize("given", [{"seed": {"int": [0, 2**62]}}, {f"k{i}": {"int": [1, 10]} for i in range(6)}])
    def test_refuses_more_combinations_than_anyone_could_try(self, given: dict[str, Any]) -> None:
        [problem] = Grid().check(space(**given))
        assert problem.key == "space"
        assert "more than 100000 combinations" in problem.message

    def test_counts_only_the_combinations_that_conditions_leave(self) -> None:
        kinds = [str(i) for i in range(6)]
        below = {f"of_{kind}": {"int": [1, 10], "when": {"kind": kind}} for kind in kinds}
        assert list(Grid().check(space(kind={"grid": kinds}, **below))) == []


@pytest.mark.parametrize("search", [Grid(), Random(trials=1), QMC(trials=1)])
def test_an_empty_space_is_one_trial_as_written(search: Grid | Random | QMC) -> None:
    assert search.plan({}, everything) == [{}]


SPACE: dict[str, Any] = {"a": {"uniform": [0, 1]}, "b": {"choice": ["x", "y", "z"]}}


class TestRandom:
    def test_trials_of_a_plan_differ(self) -> None:
        drawn = [assignment["a"] for assignment in Random(trials=50).plan(space(**SPACE), everything)]
        assert len(set(drawn)) == 50

    def test_tries_nothing_twice_and_ends_where_a_space_does(self) -> None:
        space: Space = {"a": Choice(options=[1, 2, 3]), "b": Choice(options=[True, False])}
        plan = Random(trials=50).plan(space, everything)
        assert sorted((trial["a"], trial["b"]) for trial in plan) == [(a, b) for a in (1, 2, 3) for b in (False, True)]

    def test_needs_something_to_vary(self) -> None:
        [problem] = Random().check({})
        assert problem.key == "space"

    def test_draws_what_an_initial_configuration_leaves_out(self) -> None:
        plan = Random(trials=3, initial=[{"b": "y"}, {"b": "y"}]).plan(space(**SPACE), everything)
        assert [trial["b"] for trial in plan[:2]] == ["y", "y"]
        assert plan[0]["a"] != plan[1]["a"]
        assert plan[2] == Random(trials=3).plan(space(**SPACE), everything)[2], "and leaves the other trials alone"

    def test_an_initial_configuration_that_is_not_allowed_costs_the_others_nothing(self) -> None:
        plan = Random(trials=5, initial=[{"a": 0.9, "b": "x"}]).plan(space(**SPACE), lambda trial: trial["a"] < 0.5)
        assert len(plan) == 4


class TestQMC:
    @pytest.mark.parametrize("keys", [1, 2, 5])
    def test_fills_the_space_more_evenly_than_chance(self, keys: int) -> None:
        from scipy.stats.qmc import discrepancy

        given = space(**{f"k{i}": {"uniform": [0, 1]} for i in range(keys)})

        def unevenness(search: Random | QMC) -> float:
            points = [list(trial.values()) for trial in search.plan(given, everything)]
            return float(discrepancy(np.array(points)))

        seeds = range(5)
        random = [unevenness(Random(trials=64, seed=seed)) for seed in seeds]
        assert max(unevenness(QMC(trials=64, seed=seed)) for seed in seeds) < min(random)

    def test_meets_every_combination_of_choices_equally_often(self) -> None:
        given = space(a={"choice": ["x", "y"]}, b={"grid": [1, 2, 3, 4]}, c={"uniform": [0, 1]})
        plan = QMC(trials=64, seed=3).plan(given, everything)
        counts = Counter((trial["a"], trial["b"]) for trial in plan)
        assert counts == dict.fromkeys(product("xy", range(1, 5)), 8)

    def test_a_log_scale_has_as_many_trials_in_each_order_of_magnitude(self) -> None:
        plan = QMC(trials=64).plan(space(lr={"loguniform": [1e-4, 1]}), everything)
        counts = Counter(int(-np.log10(trial["lr"])) for trial in plan)
        assert counts == dict.fromkeys(range(4), 16)

    def test_goes_on_over_many_points(self) -> None:
        plan = QMC(trials=200).plan(space(**SPACE), everything)
        assert len({repr(trial) for trial in plan}) == 200


class TestInitial:
    CONDITIONS = space(kind={"choice": ["sgd", "adam"]}, momentum={"uniform": [0, 0.9], "when": {"kind": "sgd"}})

    @pytest.mark.parametrize(
        ("initial", "key", "words"),
        [
            ({"c": 1}, "search.initial.1.c", "is not searched"),
            ({"a": 3}, "search.initial.1.a", "is outside the space: 3 is outside [0.0, 1.0]"),
            ({"b": "w"}, "search.initial.1.b", "'w' is not one of ['x', 'y', 'z']"),
        ],
    )
    @pytest.mark.parametrize("search", [Random, QMC, Bayesian, Evolution])
    def test_must_lie_in_the_space(self, search: Any, initial: dict[str, Any], key: str, words: str) -> None:
        [problem] = search(initial=[{"a": 0.5}, initial]).check(space(**SPACE))
        assert problem.key == key
        assert words in problem.message

    @pytest.mark.parametrize("initial", [{"kind": "adam", "momentum": 0.5}, {"momentum": 0.5}])
    def test_has_no_key_that_does_not_count_in_it(self, initial: dict[str, Any]) -> None:
        [problem] = Random(initial=[initial]).check(self.CONDITIONS)
        assert problem.key == "search.initial.0.momentum"
        assert "is not active" in problem.message
        assert "its condition is kind: sgd" in problem.hint
        assert list(Random(initial=[{"kind": "sgd", "momentum": 0.5}]).check(self.CONDITIONS)) == []

    def test_are_no_more_than_the_trials(self) -> None:
        [problem] = Random(trials=1, initial=[{"a": 0.1}, {"a": 0.2}]).check(space(**SPACE))
        assert problem.key == "search.initial"
        assert "has 2 configurations, but there are only 1 trial" in problem.message


NUMBERS: dict[str, Any] = {"a": {"uniform": [0, 1]}, "b": {"int": [1, 9]}, "c": {"logint": [1, 99]}}
WORDS: dict[str, Any] = {name: {"choice": ["x", "y", "z"]} for name in ("d", "e", "f", "g")}


@pytest.mark.filterwarnings("ignore")  # Optuna's about its own experiments, which a study keeps to itself
class TestBayesian:
    @pytest.mark.parametrize(
        ("search", "given", "objectives", "prunes", "words"),
        [
            (
                Bayesian(),
                NUMBERS,
                1,
                False,
                "gp: 3 keys without conditions, 30 trials",
            ),
            (
                Bayesian(),
                NUMBERS | WORDS,
                1,
                False,
                "tpe: most keys of the space are choices without an order",
            ),
            (
                Bayesian(),
                NUMBERS,
                1,
                True,
                "tpe: it also learns from trials that the scheduler prunes",
            ),
            (Bayesian(), NUMBERS, 2, False, "tpe: with several objectives"),
            (Bayesian(trials=500), NUMBERS, 1, False, "tpe: with more than 200 trials"),
            (
                Bayesian(),
                NUMBERS | {"d": {"uniform": [0, 1], "when": {"b": 3}}},
                1,
                False,
                "tpe: the space has conditions",
            ),
            (
                Bayesian(),
                {f"k{i}": {"uniform": [0, 1]} for i in range(21)},
                1,
                False,
                "tpe: the space has more than 20 keys",
            ),
        ],
    )
    def test_auto_says_which_sampler_it_chose_and_why(
        self, search: Bayesian, given: dict[str, Any], objectives: int, prunes: bool, words: str
    ) -> None:
        from optuna.samplers import GPSampler, TPESampler

        sampler, _, why = words.partition(": ")
        told = search.explain(space(**given), objectives, prunes)
        assert sampler in told and why in told
        chosen = search.build(space(**given), objectives, prunes, 0)
        assert isinstance(chosen, GPSampler if sampler == "gp" else TPESampler)

    @pytest.mark.parametrize("sampler", ["tpe", "gp"])
    def test_a_sampler_that_was_asked_for_needs_no_explanation(self, sampler: Any) -> None:
        search = Bayesian(sampler=sampler)
        assert search.explain(space(**(NUMBERS | WORDS)), 1, True) == ""
        assert sampler in type(search.build(space(**NUMBERS), 1, False, 0)).__name__.lower()


class TestCMAES:
    @pytest.mark.parametrize(
        ("given", "key", "words"),
        [
            (NUMBERS | {"d": {"choice": ["x", "y"]}}, "space.d", "these values have no order"),
            (NUMBERS | {"d": {"choice": [8, 16]}}, "space.d", "these values have no order"),
            (NUMBERS | {"d": {"uniform": [0, 1], "when": {"b": 3}}}, "space.d.when", "needs every key in every trial"),
            ({"a": {"uniform": [0, 1]}}, "space", "two keys or more"),
        ],
    )
    def test_needs_two_numbers_or_more_in_every_trial(self, given: dict[str, Any], key: str, words: str) -> None:
        [problem] = CMAES().check(space(**given))
        assert problem.key == key
        assert words in problem.message
        assert "bayesian" in problem.hint

    def test_takes_numbers_of_every_kind(self) -> None:
        assert list(CMAES().check(space(**NUMBERS, d={"choice": [8, 16, 32]}, e={"normal": [0, 1]}))) == []


@pytest.mark.filterwarnings("ignore")
class TestEvolution:
    def test_needs_more_than_one_generation(self) -> None:
        [problem] = Evolution(trials=5, population=10).check(space(**NUMBERS))
        assert problem.key == "search.population"
        assert "a generation of 10 trials is larger than search.trials" in problem.message

    @pytest.mark.parametrize(("trials", "population"), [(5, 4), (20, 4), (100, 20), (1000, 50)])
    def test_a_generation_is_a_fifth_of_the_trials(self, trials: int, population: int) -> None:
        sampler: Any = Evolution(trials=trials).build(space(**NUMBERS), 1, False, 0)
        assert sampler.population_size == population
