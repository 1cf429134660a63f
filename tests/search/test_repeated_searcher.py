"""Configurations that are trained several times: what the search hears of them, and which one wins."""

import math
from typing import ClassVar

import pytest
from conftest import experiment

from tuner.config_keys import Assignment
from tuner.errors import UserError
from tuner.objectives import Objective
from tuner.report.significance import certainty
from tuner.search.repeated_searcher import Repeated
from tuner.search.searcher import Plan, TrialOutcome
from tuner.spec.experiment import ExperimentSpec
from tuner.trials.generator import TrialGenerator, planned
from tuner.trials.labels import label
from tuner.trials.leaderboard import ranked, winner
from tuner.trials.trial import Trial

ACCURACY = [Objective(metric="val_accuracy", mode="max")]


class Heard(Plan):
    """A plan that notes what it hears."""

    def __init__(self, count: int) -> None:
        super().__init__([{"lr": float(number)} for number in range(count)])
        self.heard: list[tuple[str, int | Assignment, TrialOutcome | float | None]] = []

    def register(self, assignment: Assignment) -> None:
        super().register(assignment)
        self.heard.append(("again", assignment, None))

    def report(self, number: int, step: int, value: float) -> None:
        self.heard.append(("report", step, value))

    def tell(self, number: int, told: TrialOutcome) -> None:
        self.heard.append(("tell", number, told))

    def learn(self, told: TrialOutcome, *, is_own: bool) -> None:
        if is_own:
            super().register(told.assignment)
        self.heard.append(("learn", is_own, told))


def told(
    lr: float, value: float | None, state: str = "completed", steps: dict[int, float] | None = None
) -> TrialOutcome:
    values = None if value is None else [value]
    return TrialOutcome({"lr": lr}, state, values, steps or {})  # type: ignore[arg-type]


class TestRepeated:
    def test_each_comes_so_many_times_in_a_row(self) -> None:
        searcher = Repeated(Plan([{"lr": 1.0}, {"lr": 2.0}]), 3)
        assert searcher.total == 6
        asked = [searcher.ask() for _ in range(7)]
        assert asked == [{"lr": 1.0}] * 3 + [{"lr": 2.0}] * 3 + [None]

    def test_the_search_hears_of_the_mean_when_all_have_ended(self) -> None:
        inner = Heard(2)
        searcher = Repeated(inner, 2)
        for _ in range(4):
            searcher.ask()
        searcher.report(0, 1, 0.1)
        searcher.tell(1, told(0.0, 0.75, steps={1: 0.5, 2: 0.75}))
        searcher.tell(2, told(1.0, 0.9))
        assert inner.heard == []
        searcher.tell(0, told(0.0, 0.25, steps={1: 0.25}))
        assert inner.heard == [
            ("report", 1, 0.375),
            ("report", 2, 0.75),
            ("tell", 0, TrialOutcome({"lr": 0.0}, "completed", [0.5], {1: 0.375, 2: 0.75})),
        ]

    @pytest.mark.parametrize(
        ("states", "state", "value"),
        [
            (["completed", "failed"], "completed", 0.5),
            (["pruned", "completed"], "completed", 0.625),
            (["pruned", "failed"], "pruned", 0.5),
            (["failed", "failed"], "failed", None),
        ],
    )
    def test_what_came_to_nothing_is_left_out(self, states: list[str], state: str, value: float | None) -> None:
        inner = Heard(1)
        searcher = Repeated(inner, 2)
        for number, outcome in enumerate(states):
            searcher.ask()
            result = None if outcome == "failed" else 0.5 if "failed" in states else 0.5 + number / 4
            searcher.tell(number, told(0.0, result, outcome))
        [(_, _, heard)] = inner.heard
        assert isinstance(heard, TrialOutcome) and heard.state == state
        assert heard.values == (None if value is None else [value])

    def test_scores_and_violations_may_be_as_large_as_they_come(self) -> None:
        inner = Heard(1)
        searcher = Repeated(inner, 3)
        for number, (value, missed) in enumerate([(1.7e308, math.inf), (1.7e308, -math.inf), (1.7e308, 1.0)]):
            searcher.ask()
            searcher.tell(number, TrialOutcome({"lr": 0.0}, "completed", [value], {1: value}, {"loss < 1": missed}))
        (*_, (_, _, heard)) = inner.heard
        assert isinstance(heard, TrialOutcome)
        assert (heard.values, heard.steps, heard.violations) == ([1.7e308], {1: 1.7e308}, {"loss < 1": math.inf})

    def test_what_a_killed_job_knew_is_told_by_configuration(self) -> None:
        inner = Heard(4)
        searcher = Repeated(inner, 2)
        searcher.learn(told(9.0, 0.1), is_own=False)
        searcher.learn(told(0.0, 0.25), is_own=True)
        searcher.learn(told(0.0, 0.75), is_own=True)
        searcher.learn(told(1.0, 0.5), is_own=True)
        searcher.register({"lr": 1.0})
        searcher.learn(told(2.0, 0.8), is_own=True)  # its second one was not begun
        assert searcher.ask() == {"lr": 2.0}
        assert inner.heard[0] == ("learn", False, told(9.0, 0.1))
        assert inner.heard[1:] == [
            ("learn", True, TrialOutcome({"lr": 0.0}, "completed", [0.5])),
            ("again", {"lr": 1.0}, None),
            ("again", {"lr": 2.0}, None),
        ]
        searcher.tell(3, told(1.0, 1.0))
        assert inner.heard[-1] == ("tell", 1, TrialOutcome({"lr": 1.0}, "completed", [0.75]))
        assert searcher.ask() == {"lr": 3.0}


class TestInAnExperiment:
    SPACE: ClassVar = {"optimizer.lr": {"grid": [0.1, 0.2]}}

    def spec(self, **parts: object) -> ExperimentSpec:
        return experiment(space=self.SPACE, search={"kind": "grid"}, repeat=3, **parts)

    def test_each_time_has_a_seed_of_its_own_and_the_plan_says_it(self) -> None:
        spec = self.spec()
        trials = planned(spec) or []
        assert spec.count() == len(trials) == 6
        assert [trial.assignment["optimizer.lr"] for trial in trials] == [0.1] * 3 + [0.2] * 3
        assert len({trial.config.seed for trial in trials}) == 6
        generator = TrialGenerator(spec)
        assert generator.total == 6
        for trial in trials:
            begun = generator.next()
            assert begun is not None and (begun.assignment, begun.config) == (trial.assignment, trial.config)
        assert generator.next() is None

    def test_an_adaptive_search_counts_configurations(self) -> None:
        space = {"optimizer.lr": {"loguniform": [0.001, 0.1]}}
        spec = experiment(space=space, search={"kind": "bayesian", "trials": 4}, repeat=2)
        generator = TrialGenerator(spec)
        rates = []
        while (trial := generator.next()) is not None:
            rates.append(trial.assignment["optimizer.lr"])
            trial.take({"epoch": 1, "val_accuracy": 0.5}, spec.objective)
            trial.end("completed", "")
            generator.trial_ended(trial)
        assert len(rates) == 8 == spec.count()
        assert rates[::2] == rates[1::2] and len(set(rates)) == 4

    def test_the_budget_is_in_trials(self) -> None:
        assert TrialGenerator(self.spec(budget={"trials": 4})).total == 4

    @pytest.mark.parametrize("kind", ["pbt", "pb2"])
    def test_a_population_cannot_be_repeated(self, kind: str) -> None:
        space = {"optimizer.lr": {"loguniform": [0.001, 0.1]}}
        with pytest.raises((UserError, ValueError), match="they cannot be repeated"):
            experiment(space=space, search={"kind": "random", "trials": 4}, scheduler={"kind": kind}, repeat=2)


def scored(number: int, lr: float, score: float | None) -> Trial:
    spec = experiment()
    assignment: Assignment = {"optimizer.lr": lr}
    trial = Trial(number, assignment, spec.trial_config(assignment, number), label(assignment))
    if score is not None:
        trial.take({"epoch": 1, "val_accuracy": score}, ACCURACY[0])
    trial.end("failed" if score is None else "completed", "")
    return trial


class TestTheWinner:
    def test_it_is_of_the_best_mean_and_not_the_luckiest(self) -> None:
        lucky = [scored(0, 0.1, 0.99), scored(1, 0.1, 0.5)]
        good = [scored(2, 0.2, 0.8), scored(3, 0.2, 0.9)]
        assert winner(lucky + good, ACCURACY, 2) is good[1]
        assert ranked(lucky + good, ACCURACY, 2) == [good[1], good[0], *lucky]
        assert winner(lucky + good, ACCURACY) is lucky[0]

    def test_scores_may_be_as_large_as_they_come(self) -> None:
        trials = [scored(0, 0.1, -1.7e308), scored(1, 0.1, -1.7e308), scored(2, 0.2, 1.7e308), scored(3, 0.2, 1.7e308)]
        assert winner(trials, ACCURACY, 2) is trials[2]
        assert ranked(trials, ACCURACY, 2) == [*trials[2:], *trials[:2]]
        assert certainty(trials[2], trials, ACCURACY[0])

    def test_one_whose_other_seed_failed_comes_behind(self) -> None:
        trials = [scored(0, 0.1, 0.99), scored(1, 0.1, None), scored(2, 0.2, 0.6), scored(3, 0.2, 0.7)]
        assert winner(trials, ACCURACY, 2) is trials[3]
        assert winner(trials[:2], ACCURACY, 2) is trials[0]  # better than none
