import math
from typing import Any

import pytest

from tuner.scoring import Objective
from tuner.trial_config import TrialConfig
from tuner.trials import Status, Trial, brief, label, leaderboard, ranked, short_names, winner

HIGH, LOW = Objective.of_metric("val_accuracy"), Objective.of_metric("val_loss")
CONFIG = TrialConfig.model_validate({"data": {"kind": "digits"}, "model": {"kind": "cnn"}, "seed": 0})


def trial(number: int, best: float | None = None, status: Status = "completed", lr: float = 0.1) -> Trial:
    assignment = {"optimizer.lr": lr}
    return Trial(number, assignment, CONFIG, label(assignment), status, best=best)


def test_a_trial_keeps_its_best_report_whole() -> None:
    ours = trial(0, status="running")
    reports = [
        {"epoch": n, "val_accuracy": value, "val_loss": 9 - n} for n, value in enumerate([0.5, 0.8, 0.8, 0.6], 1)
    ]
    assert [ours.take(report, HIGH) for report in reports] == [True, True, True, False]
    assert (ours.best, ours.best_epoch, ours.epoch) == (0.8, 3, 4)
    assert ours.best_report == reports[2]


def test_a_report_without_a_score_is_never_the_best() -> None:
    ours = trial(0, status="running")
    assert not ours.take({"epoch": 1, "val_accuracy": math.nan}, HIGH)
    assert not ours.take({"epoch": 2}, HIGH)
    assert (ours.best, ours.best_epoch, ours.epoch) == (None, None, 2)


def test_seconds_run_from_start_to_end() -> None:
    ours = trial(0)
    assert ours.seconds == 0
    ours.started, ours.ended = 100.0, 107.5
    assert ours.seconds == 7.5


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


@pytest.mark.parametrize(("objective", "order"), [(HIGH, [1, 3, 0, 2, 4]), (LOW, [0, 1, 3, 2, 4])])
def test_ranked_puts_the_best_first_the_earlier_of_equals_and_then_those_without(
    objective: Objective, order: list[int]
) -> None:
    trials = [trial(0, 0.2), trial(1, 0.9), trial(2), trial(3, 0.9), trial(4, status="failed")]
    assert [t.number for t in ranked(trials, objective)] == order


def test_a_score_of_zero_is_a_score() -> None:
    assert [t.number for t in ranked([trial(0), trial(1, 0.0), trial(2, 0.1)], LOW)] == [1, 2, 0]


def test_the_winner_is_the_best_that_neither_failed_nor_diverged() -> None:
    trials = [
        trial(0, 0.5),
        trial(1, 0.9, "diverged"),
        trial(2, 0.95, "failed"),
        trial(3),
        trial(4, 0.6, "interrupted"),
        trial(5, 0.99),
    ]
    for ours in trials[:5]:
        ours.checkpoint = "there"  # the best of all lost its checkpoint
    best = winner(trials, HIGH)
    assert best is not None
    assert best.number == 4
    assert winner(trials[1:3], HIGH) is None
    assert winner([], HIGH) is None


def test_the_leaderboard_has_a_row_for_every_trial() -> None:
    trials = [trial(0, None, "failed", lr=0.1), trial(1, 0.9, lr=0.2)]
    trials[0].reason = "boom"
    table = leaderboard(trials, HIGH)
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
