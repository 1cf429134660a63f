"""Where trials come from, and who is told what came of them."""

import json
import math
from typing import Any

import pytest
from conftest import Played, experiment

from tuner.search.searcher import Searcher, TrialOutcome
from tuner.spec.experiment import ExperimentSpec
from tuner.trials.generator import TrialGenerator, planned
from tuner.trials.labels import label
from tuner.trials.trial import Trial


class Asked(Searcher):
    """Has three configurations, and notes what it is told."""

    def __init__(self) -> None:
        self.total = 3
        self.asked = 0
        self.told: list[Any] = []

    def ask(self) -> dict[str, Any] | None:
        self.asked += 1
        return None if self.asked > self.total else {"optimizer.lr": self.asked / 10}

    def register(self, assignment: Any) -> None:
        self.asked += 1
        self.told.append(("again", assignment))

    def report(self, number: int, step: int, value: float) -> None:
        self.told.append(("report", number, step, value))

    def tell(self, number: int, told: TrialOutcome) -> None:
        self.told.append(("tell", number, told))

    def learn(self, told: TrialOutcome, *, is_own: bool) -> None:
        self.asked += is_own
        self.told.append(("learn", is_own, told))

    def attributes(self, number: int) -> dict[str, Any]:
        return {"noted": number}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    searcher = Asked()
    monkeypatch.setattr(ExperimentSpec, "searcher", lambda spec, previous_trials=0: searcher)
    return searcher


def everything(generator: TrialGenerator) -> list[Trial]:
    trials = []
    while (trial := generator.next()) is not None:
        trials.append(trial)
    return trials


class TestPlanned:
    def test_the_trials_of_a_plan_are_numbered_and_whole(self) -> None:
        spec = experiment()
        trials = planned(spec)
        assert trials is not None
        assert [trial.assignment for trial in trials] == spec.plan()
        for number, trial in enumerate(trials):
            assert trial.number == number and trial.status == "pending"
            assert trial.config == spec.trial_config(trial.assignment) and trial.config.seed is not None
            assert trial.label == label(trial.assignment)

    def test_an_adaptive_search_has_none(self) -> None:
        assert planned(experiment(search={"kind": "bayesian"})) is None

    def test_they_are_what_a_supply_gives(self) -> None:
        spec = experiment()
        assert everything(TrialGenerator(spec)) == planned(spec)


class TestNext:
    def test_they_are_numbered_in_the_order_in_which_they_are_asked_for(self, asked: Asked) -> None:
        generator = TrialGenerator(experiment())
        trials = everything(generator)
        assert [trial.number for trial in trials] == [0, 1, 2]
        assert generator.trials == trials and generator.total == 3
        assert generator.next() is None

    @pytest.mark.parametrize(("budget", "there"), [(2, 2), (3, 3), (9, 4)])
    def test_the_budget_may_be_smaller_than_the_search(self, budget: int, there: int) -> None:
        generator = TrialGenerator(experiment(budget={"trials": budget}))
        assert generator.total == there
        assert len(everything(generator)) == there

    def test_the_same_configuration_again_has_a_seed_of_its_own(self) -> None:
        space = {"optimizer.lr": {"choice": [0.1, 0.2]}}
        spec = experiment(space=space, search={"kind": "bayesian", "trials": 6, "duplicates": True})
        trials = everything(TrialGenerator(spec))
        assert len(trials) == 6 and len({label(trial.assignment) for trial in trials}) == 2
        assert len({trial.config.seed for trial in trials}) == 6
        first = {label(trial.assignment): trial for trial in reversed(trials)}
        for trial in first.values():  # the first of each is the one that it would be alone
            assert trial.config == spec.trial_config(trial.assignment)

    def test_a_search_that_is_exhausted_says_so(self) -> None:
        space = {"optimizer.lr": {"choice": [0.1, 0.2]}}
        generator = TrialGenerator(experiment(space=space, search={"kind": "bayesian", "trials": 6}))
        assert len(everything(generator)) == generator.total == 2


class TestTelling:
    def test_the_searcher_hears_of_each_epoch_but_of_none_that_is_no_number(self, asked: Asked) -> None:
        spec = experiment()
        generator = TrialGenerator(spec)
        job = Played(spec, generator)
        trial = generator.next()
        assert trial
        for value in (0.5, math.nan, 0.7):
            job.report(trial, value)
        assert asked.told == [("report", 0, 1, 0.5), ("report", 0, 3, 0.7)]

    @pytest.mark.parametrize(
        ("status", "state"),
        [("completed", "completed"), ("pruned", "pruned"), ("failed", "failed"), ("diverged", "failed")],
    )
    def test_the_searcher_hears_how_a_trial_ended(self, asked: Asked, status: Any, state: str) -> None:
        spec = experiment(objective=["val_accuracy", "val_loss"], constraints=["latency_ms <= 0.1"])
        generator = TrialGenerator(spec)
        job = Played(spec, generator)
        trial = generator.next()
        assert trial
        job.report(trial, 0.6, val_loss=3.0)
        job.report(trial, math.nan, val_loss=1.0)
        job.end(trial, status)
        [told] = [what[2] for what in asked.told if what[0] == "tell"]
        assert told == TrialOutcome({"optimizer.lr": 0.1}, state, [0.6, 3.0], {1: 0.6}, {"latency_ms <= 0.1": 0.4}, {})  # type: ignore[arg-type]
        assert trial.violations == {"latency_ms <= 0.1": 0.4} and not trial.is_feasible
        assert trial.attributes == {"noted": 0}

    def test_a_trial_without_a_result_misses_nothing(self, asked: Asked) -> None:
        spec = experiment(constraints=["latency_ms <= 0.1"])
        generator = TrialGenerator(spec)
        job = Played(spec, generator)
        trial = generator.next()
        assert trial
        job.end(trial, "failed")
        assert trial.violations == {} and asked.told[0][2].values is None

    def test_of_a_trial_that_was_interrupted_it_hears_nothing(self, asked: Asked) -> None:
        spec = experiment()
        generator = TrialGenerator(spec)
        job = Played(spec, generator)
        trial = generator.next()
        assert trial
        job.end(trial, "interrupted")
        assert asked.told == []


class TestGoingOn:
    def past(self) -> list[Trial]:
        """A trial that ended, one that goes on after its first epoch, one that failed."""
        spec = experiment()
        trials = planned(spec)
        assert trials is not None
        job = Played(spec)
        job.report(trials[0], 0.9)
        job.end(trials[0], "pruned")
        trials[0].attributes = {"noted": "then"}
        job.report(trials[1], 0.5)
        job.end(trials[2], "failed")
        return trials[:3]

    def test_those_that_did_not_end_come_first_and_then_new_ones(self) -> None:
        past = self.past()
        spec = experiment()
        generator = TrialGenerator(spec, past)
        assert generator.unfinished == [past[1]]
        first, second = everything(generator)
        assert first is past[1]
        assert second.number == 3 and [second] == (planned(spec) or [])[3:]
        assert [trial.number for trial in generator.trials] == [0, 1, 2, 3]

    def test_the_searcher_learns_what_they_were(self, asked: Asked) -> None:
        past = self.past()
        elsewhere = TrialOutcome({"optimizer.lr": 0.2}, "completed", [0.3])
        TrialGenerator(experiment(), past, [elsewhere])
        lost, pruned, again, epoch, failed = asked.told
        assert lost == ("learn", False, elsewhere)
        assert pruned == (
            "learn",
            True,
            TrialOutcome(past[0].assignment, "pruned", [0.9], {1: 0.9}, {}, {"noted": "then"}),
        )
        assert again == ("again", past[1].assignment)
        assert epoch == ("report", 1, 1, 0.5)
        assert failed[2].state == "failed"

    def test_the_budget_counts_them(self) -> None:
        past = self.past()
        assert len(everything(TrialGenerator(experiment(budget={"trials": 3}), past))) == 1

    def test_repeats_are_counted_on(self) -> None:
        space = {"optimizer.lr": {"choice": [0.1]}}
        spec = experiment(space=space, search={"kind": "bayesian", "trials": 4, "duplicates": True})
        before = TrialGenerator(spec)
        past = [trial for trial in (before.next(), before.next()) if trial]
        for trial in past:
            trial.end("completed", "")
        seeds = [trial.config.seed for trial in past + everything(TrialGenerator(spec, past))]
        assert len(set(seeds)) == 4
        assert seeds == [trial.config.seed for trial in everything(TrialGenerator(spec))]

    @pytest.mark.parametrize("kind", ["bayesian", "cmaes", "evolution"])
    def test_an_adaptive_search_goes_on_with_what_it_knew(self, kind: str) -> None:
        """Each trial is told under its own number, and no configuration comes twice."""
        spec = experiment(search={"kind": kind, "trials": 12})
        before = TrialGenerator(spec)
        job = Played(spec, before)
        for number in range(6):
            trial = before.next()
            assert trial
            job.report(trial, trial.assignment["optimizer.momentum"])
            if number != 4:
                job.end(trial)
        past = json.loads(json.dumps([trial.attributes for trial in before.trials]))
        for trial, attributes in zip(before.trials, past, strict=True):
            trial.attributes = attributes  # as a journal keeps them
        generator = TrialGenerator(spec, before.trials)
        job = Played(spec, generator)
        trials = []
        while (trial := generator.next()) is not None:
            trials.append(trial)
            job.report(trial, trial.assignment["optimizer.momentum"])
            job.end(trial)
        assert [trial.number for trial in trials] == [4, *range(6, 12)]
        assert len({repr(trial.assignment) for trial in generator.trials}) == 12
