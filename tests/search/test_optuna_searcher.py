import json
import math
import warnings
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
import pytest
from optuna.samplers._tpe import _truncnorm
from optuna.trial import TrialState
from pydantic import TypeAdapter
from scipy.special import log_ndtr

from tuner.config_keys import Assignment
from tuner.search import SearchConfig
from tuner.search.adaptive import Adaptive
from tuner.search.optuna_searcher import Study
from tuner.search.planned import QMC, Random
from tuner.search.searcher import Plan, State, TrialOutcome
from tuner.search.space import Space

SEARCHES: dict[str, dict[str, Any]] = {
    "tpe": {"kind": "bayesian", "sampler": "tpe", "startup": 4},
    "gp": {"kind": "bayesian", "sampler": "gp", "startup": 4},
    "cmaes": {"kind": "cmaes", "population": 4},
    "nsga2": {"kind": "evolution", "population": 4},
    "nsga3": {"kind": "evolution", "population": 4, "algorithm": "nsga3"},
}
every_sampler = pytest.mark.parametrize("sampler", SEARCHES)
every_sampler_of_several = pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "nsga3"])
SQUARE: dict[str, Any] = {"x": {"uniform": [0, 1]}, "y": {"uniform": [0, 1]}}


@pytest.fixture(autouse=True)
def nothing_is_warned_of() -> Iterator[None]:
    """What Optuna has to say to its callers is nothing for ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def space_of(given: dict[str, Any]) -> Space:
    return TypeAdapter(Space).validate_python(given)


def study(
    sampler: str,
    given: dict[str, Any] = SQUARE,
    modes: tuple[str, ...] = ("max",),
    *,
    allows: Callable[[Assignment], bool] = lambda assignment: True,
    prunes: bool = False,
    past: int = 0,
    **settings: Any,
) -> Study:
    search = TypeAdapter(SearchConfig).validate_python({"trials": 99} | SEARCHES[sampler] | settings)
    assert isinstance(search, Adaptive)
    space = space_of(given)
    assert list(search.check(space)) == []
    return Study(search, space, modes, allows=allows, prunes=prunes, previous_trials=past)


def peak(assignment: Assignment) -> float:
    """Best where all is 0.3."""
    return -sum((float(value) - 0.3) ** 2 for value in assignment.values())


def run(searcher: Study, count: int, objective: Callable[[Assignment], float] = peak, begin: int = 0) -> list[Any]:
    """Ask for and tell of `count` trials, one after the other."""
    found = []
    for number in range(begin, begin + count):
        assignment = searcher.ask()
        assert assignment is not None
        searcher.tell(number, TrialOutcome(assignment, "completed", [objective(assignment)]))
        found.append(assignment)
    return found


def optunas(searcher: Study) -> list[Any]:
    """Optuna's trials, without those that were only suggested."""
    return [trial for trial in searcher._study.trials if trial.number in {t.number for t in searcher._asked if t}]


class TestLearning:
    @pytest.mark.slow
    @every_sampler
    def test_a_sampler_comes_nearer_to_the_best_than_it_began(self, sampler: str) -> None:
        count, seeds = (16, 2) if sampler == "gp" else (60, 3)
        runs = [[peak(trial) for trial in run(study(sampler, seed=seed), count)] for seed in range(seeds)]
        quarter = count // 4
        # The middle one of each: who has found the best looks elsewhere now and then.
        begin, end = (sum(median(values[part]) for values in runs) for part in (slice(quarter), slice(-quarter, None)))
        assert end > begin / 2, "both are below 0"

    @pytest.mark.slow
    @every_sampler
    def test_the_mode_says_which_way_is_better(self, sampler: str) -> None:
        count = 16 if sampler == "gp" else 60
        high, low = (run(study(sampler, modes=(mode,)), count, lambda trial: trial["x"]) for mode in ("max", "min"))
        late = count // 2
        assert sum(trial["x"] for trial in high[-late:]) > 1.3 * sum(trial["x"] for trial in low[-late:])

    @every_sampler_of_several
    def test_several_objectives_with_a_direction_each(self, sampler: str) -> None:
        searcher = study(sampler, modes=("max", "min"))
        for number in range(6):
            assignment = searcher.ask()
            assert assignment is not None
            searcher.report(number, 1, 0.5)  # which Optuna could not take
            state: State = "pruned" if number == 2 else "failed" if number == 3 else "completed"
            searcher.tell(number, TrialOutcome(assignment, state, [assignment["x"], assignment["y"]]))
        assert [trial.values for trial in optunas(searcher) if trial.state == TrialState.COMPLETE] == [
            [trial.params["x"], trial.params["y"]] for i, trial in enumerate(optunas(searcher)) if i not in (2, 3)
        ]


class TestParallel:
    @every_sampler
    def test_suggestions_that_wait_for_their_results_keep_apart(self, sampler: str) -> None:
        searcher = study(sampler)
        run(searcher, 6)
        waiting = [searcher.ask() for _ in range(4)]
        assert len({repr(assignment) for assignment in waiting}) == 4
        points = [tuple(assignment.values()) for assignment in waiting if assignment]
        assert min(math.dist(a, b) for i, a in enumerate(points) for b in points[:i]) > 0.01

    @every_sampler
    def test_trials_may_be_told_of_in_any_order(self, sampler: str) -> None:
        searcher = study(sampler)
        waiting = [searcher.ask() for _ in range(5)]
        for number in (3, 0, 4, 1, 2):
            assignment = waiting[number]
            assert assignment is not None
            searcher.tell(number, TrialOutcome(assignment, "completed", [peak(assignment)]))
        assert [trial.value for trial in optunas(searcher)] == [peak(trial) for trial in waiting if trial]


class TestNothingTwice:
    FEW: dict[str, Any] = {"x": {"int": [1, 3]}, "y": {"uniform": [0, 1], "step": 1}}  # noqa: RUF012

    @every_sampler
    def test_each_configuration_of_a_finite_space_comes_once(self, sampler: str) -> None:
        searcher = study(sampler, self.FEW)
        assert len({repr(trial) for trial in run(searcher, 6)}) == 6
        assert searcher.ask() is None
        assert searcher.total == 6
        assert searcher.ask() is None

    @pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
    def test_unless_that_is_asked_for(self, sampler: str) -> None:
        trials = run(study(sampler, self.FEW, duplicates=True), 20)
        assert len({repr(trial) for trial in trials}) < 20

    @every_sampler
    def test_there_are_no_more_than_the_trials_of_the_search(self, sampler: str) -> None:
        searcher = study(sampler, trials=4)
        run(searcher, 4)
        assert searcher.ask() is None


class TestInitial:
    INITIAL: list[dict[str, Any]] = [{"x": 0.25, "y": 0.125}, {"y": 0.5}]  # noqa: RUF012

    @every_sampler
    def test_comes_first_and_what_is_left_out_is_drawn(self, sampler: str) -> None:
        first, second, third = run(study(sampler, initial=self.INITIAL), 3)
        assert first == self.INITIAL[0]
        assert second["y"] == 0.5 and second["x"] not in (0.25, 0.5)
        assert third["y"] != 0.5

    def test_comes_as_it_was_written_even_where_a_sampler_sees_quantiles(self) -> None:
        given = {"x": {"normal": [0, 1]}, "y": {"uniform": [0, 1]}}
        [first] = run(study("tpe", given, initial=[{"x": 0.1}]), 1)
        assert first["x"] == 0.1

    def test_comes_even_where_everything_around_it_failed(self) -> None:
        searcher = study("tpe", initial=[{"x": 0.9, "y": 0.9}])
        for i in range(6):
            searcher.learn(TrialOutcome({"x": 0.9, "y": 0.88 + i / 100}, "failed"), is_own=False)
        assert searcher.ask() == {"x": 0.9, "y": 0.9}

    def test_goes_on_where_an_earlier_run_ended(self) -> None:
        searcher = study("tpe", initial=self.INITIAL, past=1)
        searcher.learn(TrialOutcome(self.INITIAL[0], "completed", [1.0]), is_own=True)
        [second] = run(searcher, 1, begin=1)
        assert second["y"] == 0.5


class TestStartup:
    """What is tried before the sampler knows enough."""

    def test_a_gaussian_process_fills_the_space_evenly_first(self) -> None:
        ours = study("gp", initial=[{"x": 0.5, "y": 0.5}], seed=3)
        asked = [ours.ask() for _ in range(5)]
        assert asked == [{"x": 0.5, "y": 0.5}, *QMC(trials=4, seed=3).plan(space_of(SQUARE), lambda _: True)]

    def test_a_gaussian_process_begins_as_soon_as_it_has_a_few_more_than_keys(self) -> None:
        for keys, begins in ((2, 4), (5, 7), (12, 10)):
            given = {f"x{i}": {"uniform": [0, 1]} for i in range(keys)}
            ours = study("gp", given, startup=None)
            plan = QMC(trials=20).plan(space_of(given), lambda _: True)
            for number in range(begins + 1):
                assignment = ours.ask()
                assert assignment is not None
                assert (assignment == plan[number]) == (number < begins), number
                ours.tell(number, TrialOutcome(assignment, "completed", [peak(assignment)]))

    def test_what_was_learnt_elsewhere_is_not_explored_again(self) -> None:
        ours = study("gp")
        for x in (0.1, 0.2, 0.3):
            ours.learn(TrialOutcome({"x": x, "y": x}, "completed", [x]), is_own=False)
        plan = QMC(trials=2).plan(space_of(SQUARE), lambda _: True)
        assert ours.ask() == plan[0]
        assert ours.ask() != plan[1]

    def test_what_an_earlier_run_had_of_it_is_not_tried_again(self) -> None:
        plan = QMC(trials=4).plan(space_of(SQUARE), lambda _: True)
        assert study("gp", past=3).ask() == plan[3]


def test_the_tail_of_the_normal_distribution_is_the_same_as_optunas() -> None:
    """While TPE is asked, SciPy's function stands in for it."""
    numbers = np.concatenate([np.linspace(-60, 10, 2001), [-1e4, -300.0]])
    np.testing.assert_allclose(log_ndtr(numbers), _truncnorm._log_ndtr(numbers), rtol=1e-12, atol=1e-15)
    ours = study("tpe")
    for number in range(6):
        assignment = ours.ask()
        assert assignment is not None
        ours.tell(number, TrialOutcome(assignment, "completed", [peak(assignment)]))
    assert _truncnorm._log_ndtr is not log_ndtr  # and only then


class TestOutcomes:
    """What Optuna knows of a trial."""

    @every_sampler
    def test_a_completed_trial_has_its_value_and_its_steps(self, sampler: str) -> None:
        searcher = study(sampler)
        assignment = searcher.ask()
        assert assignment is not None
        for step in (1, 2, 3):
            searcher.report(0, step, step / 10)
        searcher.tell(0, TrialOutcome(assignment, "completed", [0.3]))
        [trial] = optunas(searcher)
        assert trial.state == TrialState.COMPLETE
        assert trial.values == [0.3]
        assert trial.intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3}
        assert trial.params == assignment

    @every_sampler
    def test_a_failed_trial_has_failed_and_has_no_value(self, sampler: str) -> None:
        searcher = study(sampler)
        assignment = searcher.ask()
        assert assignment is not None
        searcher.report(0, 1, 0.5)
        searcher.tell(0, TrialOutcome(assignment, "failed", [0.5]))
        [trial] = optunas(searcher)
        assert (trial.state, trial.values) == (TrialState.FAIL, None)

    @every_sampler
    @pytest.mark.parametrize("values", [[math.nan], [math.inf], None])
    def test_a_trial_without_a_finite_value_has_failed(self, sampler: str, values: list[float] | None) -> None:
        searcher = study(sampler)
        assignment = searcher.ask()
        assert assignment is not None
        searcher.tell(0, TrialOutcome(assignment, "completed", values))
        [trial] = optunas(searcher)
        assert (trial.state, trial.values) == (TrialState.FAIL, None)

    @every_sampler
    def test_a_pruned_trial_is_pruned_and_has_its_steps(self, sampler: str) -> None:
        searcher = study(sampler, prunes=True)
        assignment = searcher.ask()
        assert assignment is not None
        for step in (1, 2):
            searcher.report(0, step, step / 10)
        searcher.tell(0, TrialOutcome(assignment, "pruned", [0.2]))
        [trial] = optunas(searcher)
        assert trial.state == TrialState.PRUNED
        assert trial.intermediate_values == {1: 0.1, 2: 0.2}

    @every_sampler_of_several
    def test_what_was_measured_of_a_constraint_is_told(self, sampler: str) -> None:
        searcher = study(sampler)
        for number in range(6):
            assignment = searcher.ask()
            assert assignment is not None
            missed = {"latency_ms <= 2": math.inf if number == 3 else number - 2.0, "val_loss <= 1": -1.0}
            searcher.tell(number, TrialOutcome(assignment, "completed", [0.5], violations=missed))
        assert [trial.constraints for trial in optunas(searcher)][:4] == [
            {"latency_ms <= 2": -2.0, "val_loss <= 1": -1.0},
            {"latency_ms <= 2": -1.0, "val_loss <= 1": -1.0},
            {"latency_ms <= 2": 0.0, "val_loss <= 1": -1.0},
            {"latency_ms <= 2": math.inf, "val_loss <= 1": -1.0},
        ]

    @pytest.mark.slow
    @pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
    def test_a_measured_constraint_is_learnt(self, sampler: str) -> None:
        """The best value lies where the constraint is missed."""

        def late(violated: bool) -> float:
            total = 0.0
            for seed in range(3):
                searcher = study(sampler, seed=seed)
                for number in range(50):
                    assignment = searcher.ask()
                    assert assignment is not None
                    missed = {"x <= 0.4": assignment["x"] - 0.4} if violated else {}
                    searcher.tell(number, TrialOutcome(assignment, "completed", [assignment["x"]], violations=missed))
                    total += assignment["x"] if number >= 30 else 0
            return total / 60

        assert late(violated=True) < 0.5 < late(violated=False)


class TestStaticConstraints:
    @pytest.mark.slow
    @every_sampler
    def test_nothing_is_tried_that_is_forbidden(self, sampler: str) -> None:
        searcher = study(sampler, allows=lambda trial: trial["x"] + trial["y"] <= 0.8)
        for trial in run(searcher, 9, lambda trial: trial["x"] + trial["y"]):
            assert trial["x"] + trial["y"] <= 0.8

    @pytest.mark.slow
    def test_a_sampler_still_comes_to_the_best_at_the_edge_of_what_is_allowed(self) -> None:
        found = run(study("gp", allows=lambda trial: trial["x"] <= 0.6), 14, lambda trial: trial["x"])
        assert max(trial["x"] for trial in found) > 0.55

    def test_those_that_are_forbidden_count_as_bad_for_tpe_and_as_no_trial_for_others(self) -> None:
        searcher = study("tpe", allows=lambda trial: trial["x"] <= 0.5)
        run(searcher, 10)
        forbidden = [trial for trial in searcher._study.trials if trial.params["x"] > 0.5]
        assert forbidden
        assert {trial.state for trial in forbidden} == {TrialState.PRUNED}
        assert all(trial.constraints == {"allowed": 1.0} for trial in forbidden)
        assert len(searcher._asked) == 10

    @every_sampler
    def test_where_everything_is_forbidden_there_is_no_trial(self, sampler: str) -> None:
        searcher = study(sampler, allows=lambda trial: False)
        assert searcher.ask() is None
        assert searcher.total == 0


class TestConditions:
    GIVEN: dict[str, Any] = {  # noqa: RUF012
        "kind": {"choice": ["sgd", "adam"]},
        "momentum": {"uniform": [0, 1], "when": {"kind": "sgd"}},
        "beta1": {"uniform": [0, 1], "when": {"kind": "adam"}},
    }

    @pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "nsga3"])
    def test_only_keys_that_count_are_suggested(self, sampler: str) -> None:
        count = 8 if sampler == "gp" else 30
        trials = run(study(sampler, self.GIVEN), count, lambda trial: trial.get("momentum", 0.1))
        assert {tuple(trial) for trial in trials} == {("kind", "momentum"), ("kind", "beta1")}
        assert all((trial["kind"] == "sgd") == ("momentum" in trial) for trial in trials)

    def test_tpe_learns_a_key_behind_a_condition(self) -> None:
        late: list[Any] = []
        for seed in range(3):
            late += run(study("tpe", self.GIVEN, seed=seed), 60, lambda trial: trial.get("momentum", 0.1))[-20:]
        of_sgd = [trial["momentum"] for trial in late if trial["kind"] == "sgd"]
        assert len(of_sgd) > 30 and sum(of_sgd) / len(of_sgd) > 0.6


class TestFailures:
    """Where trials fail again and again, fewer are tried."""

    @staticmethod
    def share(sampler: str, count: int, seeds: int, given: dict[str, Any] = SQUARE) -> float:
        """Of the later half of the suggestions, how many lie in the third of the space where each trial fails."""
        failed = 0
        for seed in range(seeds):
            searcher = study(sampler, given, seed=seed)
            for number in range(count):
                assignment = searcher.ask()
                assert assignment is not None
                fails = assignment["x"] > 2 / 3
                value = -abs(assignment.get("y", 0.5) - 0.5)  # says nothing for or against it
                searcher.tell(
                    number,
                    TrialOutcome(assignment, "failed") if fails else TrialOutcome(assignment, "completed", [value]),
                )
                failed += fails and number >= count // 2
        return failed / (seeds * (count - count // 2))

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("sampler", "count", "seeds", "most"),
        [("tpe", 50, 8, 0.2), ("nsga2", 50, 8, 0.15), ("cmaes", 50, 8, 0.15), ("gp", 24, 3, 0.2)],
    )
    def test_a_third_that_always_fails_is_tried_clearly_less_than_in_a_third_of_the_trials(
        self, sampler: str, count: int, seeds: int, most: float
    ) -> None:
        random = [
            trial["x"] > 2 / 3
            for seed in range(seeds)
            for trial in Random(trials=count, seed=seed).plan(space_of(SQUARE), lambda trial: True)
        ]
        assert 0.27 < sum(random) / len(random) < 0.4
        assert self.share(sampler, count, seeds) < most

    def test_it_is_the_failures_that_drive_them_away(self) -> None:
        late: list[Any] = []
        for seed in range(6):
            late += run(study("tpe", seed=seed), 40, lambda trial: -abs(trial["y"] - 0.5))[20:]
        assert sum(trial["x"] > 2 / 3 for trial in late) / len(late) > 0.25

    @pytest.mark.slow
    def test_a_best_at_the_edge_of_what_fails_is_approached_and_not_run_into(self) -> None:
        """Optuna's Gaussian process alone, which passes over failed trials, tries little else but x near 1."""
        searcher = study("gp", {"x": {"uniform": [0, 1]}})
        states = []
        for number in range(16):
            assignment = searcher.ask()
            assert assignment is not None
            states.append(assignment["x"] > 0.6)
            told = (
                TrialOutcome(assignment, "failed")
                if states[-1]
                else TrialOutcome(assignment, "completed", [assignment["x"]])
            )
            searcher.tell(number, told)
        assert sum(states[6:]) <= 5

    @pytest.mark.slow
    def test_a_kind_that_always_fails_is_tried_less(self) -> None:
        given = {"kind": {"choice": ["a", "b", "c"]}, "x": {"uniform": [0, 1]}}
        failed = 0
        for seed in range(5):
            searcher = study("tpe", given, seed=seed)
            for number in range(30):
                assignment = searcher.ask()
                assert assignment is not None
                fails = assignment["kind"] == "c"
                told = (
                    TrialOutcome(assignment, "failed")
                    if fails
                    else TrialOutcome(assignment, "completed", [assignment["x"]])
                )
                searcher.tell(number, told)
                failed += fails and number >= 10
        assert failed / 100 < 0.2

    @every_sampler
    def test_where_everything_fails_it_goes_on(self, sampler: str) -> None:
        searcher = study(sampler)
        for number in range(12):
            assignment = searcher.ask()
            assert assignment is not None
            searcher.tell(number, TrialOutcome(assignment, "failed"))


def told_of(searcher: Study, begin: int, count: int) -> list[TrialOutcome]:
    """Run trials that complete, are pruned and fail in turn; what is to be remembered of them, through JSON."""
    remembered = []
    states: tuple[State, ...] = ("completed", "completed", "pruned", "completed", "failed")
    for number in range(begin, begin + count):
        assignment = searcher.ask()
        assert assignment is not None
        steps = {step: peak(assignment) / step for step in (1, 2, 3)}
        for step, value in steps.items():
            searcher.report(number, step, value)
        state = states[number % 5]
        values = [peak(assignment)] if state == "completed" else None
        searcher.tell(number, TrialOutcome(assignment, state, values, steps))
        noted = json.loads(json.dumps(searcher.attributes(number)))
        remembered.append(TrialOutcome(assignment, state, values, steps, {}, noted))
    return remembered


class TestGoingOn:
    """A study that is opened again, from what was remembered of an earlier run."""

    @every_sampler
    def test_it_knows_all_trials(self, sampler: str) -> None:
        before = study(sampler, prunes=True)
        remembered = told_of(before, 0, 10)
        after = study(sampler, prunes=True, past=10)
        for told in remembered:
            after.learn(told, is_own=True)
        kept = after._study.trials
        assert len(kept) == 10
        for old, new in zip(optunas(before), kept, strict=True):
            assert (new.state, new.values, new.params) == (old.state, old.values, old.params)
            assert new.intermediate_values == old.intermediate_values
            assert new.distributions == old.distributions
            assert new.system_attrs == old.system_attrs
        told_of(after, 10, 3)  # and goes on

    @pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3"])
    def test_it_knows_what_was_measured_of_constraints(self, sampler: str) -> None:
        searcher = study(sampler)
        searcher.learn(TrialOutcome({"x": 0.1, "y": 0.2}, "completed", [1.0], violations={"c <= 1": 0.5}), is_own=True)
        assert searcher._study.trials[0].constraints == {"c <= 1": 0.5}

    def test_cmaes_goes_on_with_its_generation_and_its_covariance(self) -> None:
        before = study("cmaes")
        remembered = []
        for number in range(14):
            [assignment] = run(before, 1, begin=number)
            remembered.append(
                TrialOutcome(assignment, "completed", [peak(assignment)], {}, {}, dict(before.attributes(number)))
            )
        generations = [told.attributes["cma:generation"] for told in remembered if "cma:generation" in told.attributes]
        assert generations == sorted(generations) and generations[-1] >= 2
        after = study("cmaes", past=14)
        for told in json.loads(json.dumps([vars(told) for told in remembered])):
            after.learn(TrialOutcome(**told), is_own=True)
        run(after, 1, begin=14)
        assert after.attributes(14)["cma:generation"] >= generations[-1]

    @every_sampler
    def test_it_suggests_nothing_again_that_was_tried(self, sampler: str) -> None:
        few = {"x": {"int": [1, 3]}, "y": {"uniform": [0, 1], "step": 1}}
        settings: dict[str, Any] = {"startup": 6} if "startup" in SEARCHES[sampler] else {}
        past = run(study(sampler, few, **settings), 3)
        searcher = study(sampler, few, past=3, **settings)
        for assignment in past:
            searcher.learn(TrialOutcome(assignment, "completed", [1.0]), is_own=True)
        rest = run(searcher, 3, begin=3)
        assert len({repr(trial) for trial in (*past, *rest)}) == 6
        assert searcher.ask() is None

    @every_sampler
    def test_a_trial_that_was_running_goes_on_and_is_told_of(self, sampler: str) -> None:
        searcher = study(sampler, trials=5, past=2)
        searcher.register({"x": 0.25, "y": 0.5})
        searcher.learn(TrialOutcome({"x": 0.75, "y": 0.5}, "completed", [0.1]), is_own=True)
        searcher.report(0, 1, 0.3)
        searcher.tell(0, TrialOutcome({"x": 0.25, "y": 0.5}, "completed", [0.3]))
        done = {tuple(trial.params.values()): (trial.state, trial.value) for trial in searcher._study.trials}
        assert done == {(0.25, 0.5): (TrialState.COMPLETE, 0.3), (0.75, 0.5): (TrialState.COMPLETE, 0.1)}
        run(searcher, 3, begin=2)
        assert searcher.ask() is None, "those of the past are counted"

    def test_its_random_numbers_go_on_behind_those_of_the_earlier_run(self) -> None:
        assert run(study("tpe", past=3), 1) != run(study("tpe"), 1)
        assert run(study("tpe", past=3), 1) == run(study("tpe", past=3), 1)

    def test_trials_from_elsewhere_are_learnt_from_and_not_counted(self) -> None:
        searcher = study("tpe", trials=4)
        for i in range(20):
            searcher.learn(TrialOutcome({"x": i / 20, "y": 0.5}, "completed", [i / 20]), is_own=False)
        trials = run(searcher, 4)
        assert searcher.ask() is None
        assert sum(trial["x"] for trial in trials) / 4 > 0.6, "it begins where they were good"

    def test_failures_of_the_past_are_avoided(self) -> None:
        searcher = study("tpe")
        for i in range(12):
            told: State = "failed" if i % 2 else "completed"
            searcher.learn(TrialOutcome({"x": 0.9 if i % 2 else 0.1, "y": i / 12}, told, [0.0]), is_own=True)
        waiting = [searcher.ask() for _ in range(10)]
        assert all(trial and trial["x"] < 0.6 for trial in waiting)


class TestPlan:
    PLAN: list[Assignment] = [{"x": 1}, {"x": 2}, {"x": 3}]  # noqa: RUF012

    def test_is_handed_out_in_order(self) -> None:
        plan = Plan(self.PLAN)
        assert [plan.ask() for _ in range(4)] == [*self.PLAN, None]
        assert plan.total == 3

    def test_goes_on_behind_what_an_earlier_run_had(self) -> None:
        plan = Plan(self.PLAN)
        plan.learn(TrialOutcome(self.PLAN[0], "failed"), is_own=True)
        plan.register(self.PLAN[1])
        plan.learn(TrialOutcome({"x": 9}, "completed", [1.0]), is_own=False)
        assert plan.ask() == self.PLAN[2]
        assert plan.ask() is None
        assert plan.attributes(0) == {}
