import math
from typing import Any

import pytest

from tuner.objectives import Objective
from tuner.train.trial_config import TrialConfig
from tuner.trials.callback import TrialCallback
from tuner.trials.labels import brief, label, short_names
from tuner.trials.leaderboard import front, leaderboard, ranked, winner
from tuner.trials.status import Status
from tuner.trials.trial import Mutation, Trial

HIGH, LOW = Objective.of_metric("val_accuracy"), Objective.of_metric("val_loss")
CONFIG = TrialConfig.model_validate({"data": {"kind": "digits"}, "model": {"kind": "cnn"}, "seed": 0})


def trial(number: int, best: float | None = None, status: Status = "completed", lr: float = 0.1) -> Trial:
    assignment = {"optimizer.lr": lr}
    return Trial(number, assignment, CONFIG, label(assignment), status, best=best)


def two(number: int, accuracy: float, loss: float | None, status: Status = "completed", missed: float = 0.0) -> Trial:
    """A trial with two metrics and a constraint that it misses by so much."""
    ours = trial(number, status="running")
    ours.take({"epoch": 1, "val_accuracy": accuracy} | ({} if loss is None else {"val_loss": loss}), HIGH)
    ours.violations = {"latency_ms <= 2": missed}
    ours.end(status, "")
    return ours


def numbers(trials: list[Trial]) -> list[int]:
    return [ours.number for ours in trials]


def test_a_trial_keeps_its_best_report_whole() -> None:
    ours = trial(0, status="running")
    reports = [
        {"epoch": n, "val_accuracy": value, "val_loss": 9 - n} for n, value in enumerate([0.5, 0.8, 0.8, 0.6], 1)
    ]
    taken = [(ours.take(report, HIGH), ours.standing) for report in reports]
    new = (True, "best so far")
    assert taken == [new, new, (True, "as good as the best so far"), (False, "")]
    assert (ours.best, ours.best_epoch, ours.epoch) == (0.8, 3, 4)
    assert ours.best_report == reports[2]
    assert ours.series == {1: 0.5, 2: 0.8, 3: 0.8, 4: 0.6}
    assert ours.reported == {"epoch", "val_accuracy", "val_loss"}


def test_a_report_without_a_score_is_never_the_best() -> None:
    ours = trial(0, status="running")
    assert not ours.take({"epoch": 1, "val_accuracy": math.nan}, HIGH)
    assert not ours.take({"epoch": 2}, HIGH)
    assert (ours.best, ours.best_epoch, ours.epoch) == (None, None, 2)
    assert list(ours.series) == []


def test_of_several_objectives_a_report_counts_where_all_are_finite() -> None:
    ours = trial(0)
    reports = [(0.5, 0.2), (0.9, math.nan), (0.9, None), (math.inf, 0.1), (0.6, 0.3)]
    for epoch, (accuracy, loss) in enumerate(reports, start=1):
        report = {"epoch": epoch, "val_accuracy": accuracy} | ({} if loss is None else {"val_loss": loss})
        assert ours.take(report, HIGH, others=[LOW]) == (epoch in (1, 5))
        wrong = {2: ["val_loss"], 3: ["val_loss"], 4: ["val_accuracy"]}.get(epoch, [])
        assert list(ours.not_finite) == wrong
    assert ours.series == {1: 0.5, 2: 0.9, 3: 0.9, 5: 0.6}
    assert ours.values([HIGH, LOW]) == [0.6, 0.3]


def test_a_report_is_taken_when_it_came() -> None:
    ours = trial(0, status="running")
    ours.take({"epoch": 1, "val_accuracy": 0.5}, HIGH, 123.0)
    assert ours.updated == 123.0


def test_seconds_run_from_start_to_end() -> None:
    ours = trial(0)
    assert ours.seconds == 0
    ours.started, ours.ended = 100.0, 107.5
    assert ours.seconds == 7.5


def test_a_mutated_trial_is_another_one_from_then_on_and_its_best_report_keeps_what_it_was_trained_with() -> None:
    ours, other = trial(0, status="running"), CONFIG.model_copy(update={"seed": 1})
    before, after = dict(ours.assignment), {"optimizer.lr": 0.3}
    ours.take({"epoch": 1, "val_accuracy": 0.5}, HIGH)
    mutation = Mutation(2, 7, before, after)
    # Whether it is told before or after the last report that was trained with the old configuration.
    ours.mutate(mutation, other, "parent's")
    ours.take({"epoch": 2, "val_accuracy": 0.8}, HIGH)
    assert ours.best_assignment == before
    assert (ours.assignment, ours.config, ours.label) == (after, other, "lr=0.3")
    assert (ours.latest, ours.latest_epoch, ours.mutations) == ("parent's", 2, [mutation])
    ours.take({"epoch": 3, "val_accuracy": 0.9}, HIGH)
    assert ours.best_assignment == after
    assert [ours.assignment_at(epoch) for epoch in (1, 2, 3)] == [before, before, after]


@pytest.mark.parametrize(
    ("keys", "short"),
    [
        (["optimizer.lr", "optimizer.momentum"], ["lr", "momentum"]),
        (["optimizer.lr", "schedule.lr"], ["optimizer.lr", "schedule.lr"]),
        (["task.heads.a.weight", "task.heads.b.weight", "epochs"], ["a.weight", "b.weight", "epochs"]),
        (["seed", "data.seed"], ["seed", "data.seed"]),
        ([], []),
    ],
)
def test_short_names_tell_keys_apart(keys: list[str], short: list[str]) -> None:
    assert short_names(keys) == dict(zip(keys, short, strict=True))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1, "0.1"), (1e-5, "1e-05"), (0.123456, "0.1235"), (64, "64"), ("adam", "adam"), (True, "True"), (None, "None")],
)
def test_brief(value: Any, text: str) -> None:
    assert brief(value) == text


def test_label() -> None:
    assert label({"optimizer.lr": 0.01, "model.kind": "cnn"}) == "lr=0.01 kind=cnn"
    assert label({}) == ""


class TestRanked:
    @pytest.mark.parametrize(("objective", "order"), [(HIGH, [1, 3, 0, 2, 4]), (LOW, [0, 1, 3, 2, 4])])
    def test_the_best_first_the_earlier_of_equals_and_then_those_without(
        self, objective: Objective, order: list[int]
    ) -> None:
        trials = [trial(0, 0.2), trial(1, 0.9), trial(2), trial(3, 0.9), trial(4, status="failed")]
        assert numbers(ranked(trials, [objective])) == order

    def test_a_score_of_zero_is_a_score(self) -> None:
        assert numbers(ranked([trial(0), trial(1, 0.0), trial(2, 0.1)], [LOW])) == [1, 2, 0]

    def test_those_that_miss_a_constraint_come_behind_those_that_do_not(self) -> None:
        trials = [two(0, 0.9, 1.0, missed=0.1), two(1, 0.5, 1.0), two(2, 0.7, 1.0, missed=-3.0), trial(3)]
        assert numbers(ranked(trials, [HIGH])) == [2, 1, 0, 3]

    def test_the_front_comes_first_by_the_first_objective(self) -> None:
        # 1 and 3 are on the front; 0 is better than 3 in accuracy, but worse than 1 in both.
        trials = [two(0, 0.8, 0.5), two(1, 0.9, 0.4), two(2, 0.95, 0.1, missed=1.0), two(3, 0.6, 0.3), trial(4)]
        assert numbers(ranked(trials, [HIGH, LOW])) == [1, 3, 0, 2, 4]


class TestFront:
    def test_of_one_objective_there_is_none(self) -> None:
        assert front([two(0, 0.9, 0.1)], [HIGH]) == []

    def test_it_is_of_those_that_ended_well_with_both_measured_and_no_constraint_missed(self) -> None:
        trials = [
            two(0, 0.5, 0.9, "pruned"),
            two(1, 0.6, 1.0, "interrupted"),
            two(2, 0.99, 0.01, missed=0.1),
            two(3, 0.98, 0.01, "diverged"),
            two(4, 0.98, 0.01, "failed"),
            two(5, 0.98, None),
            two(6, 0.98, math.nan),
            two(7, 0.4, 0.95),
            trial(8),
        ]
        assert numbers(front(trials, [HIGH, LOW])) == [1, 0]

    def test_equals_are_both_on_it(self) -> None:
        assert numbers(front([two(0, 0.9, 0.1), two(1, 0.9, 0.1), two(2, 0.9, 0.2)], [HIGH, LOW])) == [0, 1]

    def test_directions_count(self) -> None:
        trials = [two(0, 0.9, 0.9), two(1, 0.1, 0.1)]
        assert numbers(front(trials, [HIGH, LOW])) == [0, 1]
        assert numbers(front(trials, [LOW, LOW])) == [1]
        assert sorted(numbers(front(trials, [LOW, HIGH]))) == [0, 1]

    def test_values_are_those_of_the_best_report(self) -> None:
        ours = trial(0, status="running")
        ours.take({"epoch": 1, "val_accuracy": 0.9, "val_loss": 0.7}, HIGH)
        ours.take({"epoch": 2, "val_accuracy": 0.8, "val_loss": 0.1}, HIGH)
        assert ours.values([HIGH, LOW]) == [0.9, 0.7]
        assert ours.values([HIGH, Objective.of_metric("val_f1")]) is None


class TestWinner:
    def test_it_is_the_best_that_neither_failed_nor_diverged(self) -> None:
        trials = [
            trial(0, 0.5),
            trial(1, 0.9, "diverged"),
            trial(2, 0.95, "failed"),
            trial(3),
            trial(4, 0.6, "interrupted"),
            trial(5, 0.7, "pruned"),
            trial(6, 0.99, "running"),
        ]
        best = winner(trials, [HIGH])
        assert best is not None
        assert best.number == 5
        assert winner(trials[1:3], [HIGH]) is None
        assert winner([], [HIGH]) is None

    def test_it_misses_no_constraint(self) -> None:
        trials = [two(0, 0.9, 0.1, missed=1e-9), two(1, 0.5, 0.1)]
        assert winner(trials, [HIGH]) is trials[1]
        assert winner(trials[:1], [HIGH]) is None

    def test_of_several_objectives_the_first_decides(self) -> None:
        trials = [two(0, 0.9, 0.5), two(1, 0.8, 0.1)]
        assert winner(trials, [HIGH, LOW]) is trials[0]
        for ours in trials:
            ours.best = ours.best_report["val_loss"]  # as it is where the loss comes first
        assert winner(trials, [LOW, HIGH]) is trials[1]


class TestLeaderboard:
    def test_it_has_a_row_for_every_trial(self) -> None:
        trials = [trial(0, None, "failed", lr=0.1), trial(1, 0.9, lr=0.2)]
        trials[0].reason = "boom"
        table = leaderboard(trials, [HIGH])
        assert list(table.columns) == [
            "trial",
            "status",
            "val_accuracy",
            "best_epoch",
            "optimizer.lr",
            "seconds",
            "reason",
        ]
        assert list(table["trial"]) == [1, 0]
        assert list(table["optimizer.lr"]) == [0.2, 0.1]
        assert list(table["reason"]) == ["", "boom"]

    def test_of_several_objectives_it_says_who_is_on_the_front_and_what_is_missed_by_how_much(self) -> None:
        trials = [two(0, 0.9, 0.5), two(1, 0.8, 0.6, missed=0.25)]
        table = leaderboard(trials, [HIGH, LOW])
        assert [name for name in table.columns if name not in ("seconds", "reason")] == [
            *("trial", "status", "val_accuracy", "val_loss", "pareto"),
            *("best_epoch", "optimizer.lr", "missed: latency_ms <= 2"),
        ]
        assert table["pareto"].tolist() == [True, False]
        assert table["val_loss"].tolist() == [0.5, 0.6]
        assert table["missed: latency_ms <= 2"].tolist() == [0.0, 0.25]

    def test_a_mutated_trial_stands_there_with_what_its_best_report_was_trained_with(self) -> None:
        ours = two(0, 0.9, 0.5)
        ours.mutate(Mutation(1, 1, ours.assignment, {"optimizer.lr": 0.3}), CONFIG, None)
        assert leaderboard([ours], [HIGH])["optimizer.lr"].tolist() == [0.1]


def test_a_listener_need_not_listen_to_everything() -> None:
    ours, listener = trial(0), TrialCallback()
    listener.trial_started(ours)
    listener.trial_reported(ours, {})
    listener.trial_saved(ours)
    listener.trial_mutated(ours, Mutation(1, 0, {}, {}))
    listener.trial_ended(ours)
