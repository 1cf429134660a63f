import time
from io import StringIO

import pytest
from rich.console import Console

from tuner.data import Digits
from tuner.display import Display, duration
from tuner.models import CNN
from tuner.scoring import Objective
from tuner.summary import _that_fits, leaderboard_table
from tuner.trial_config import TrialConfig
from tuner.trials import Trial, label

OBJECTIVE = Objective(metric="val_accuracy", mode="max")


def trial(number: int, epochs: int = 4) -> Trial:
    config = TrialConfig(data=Digits(), model=CNN(), epochs=epochs)
    return Trial(number, {"optimizer.lr": 0.1 / (number + 1)}, config, f"lr={0.1 / (number + 1):.4g}")


def report(display: Display, one: Trial, epoch: int, value: float) -> None:
    metrics = {"epoch": epoch, "val_accuracy": value}
    one.take(metrics, OBJECTIVE)
    display.trial_reported(one, metrics)


def end(display: Display, one: Trial, status: str, reason: str = "") -> None:
    one.status, one.reason, one.ended = status, reason, time.time()  # type: ignore[assignment]
    display.trial_ended(one)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.6, "1m 00s"), (42.2, "42s"), (185, "3m 05s"), (7800, "2h 10m")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_log_gets_plain_lines_with_what_has_been_and_what_is_left() -> None:
    text, trials = StringIO(), [trial(0), trial(1)]
    display = Display(Console(file=text, width=60), "job", OBJECTIVE, trials)
    with display:
        for one in trials:
            one.started, one.status = time.time() - 10, "running"
            for epoch in (1, 2, 3, 4):
                report(display, one, epoch, 0.5 + epoch / 10)
            end(display, one, "completed")
    lines = text.getvalue().splitlines()
    assert len(lines) == 2  # wider than the console, and still one line each
    assert lines[0].startswith("[1/2] trial 0 completed · lr=0.1 · val_accuracy 0.9000 in epoch 4")
    assert lines[0].endswith("left")
    assert "left" not in lines[1]
    assert "\x1b" not in text.getvalue()


def test_a_terminal_shows_progress_the_best_so_far_and_what_runs() -> None:
    text, trials = StringIO(), [trial(0), trial(1), trial(2)]
    console = Console(file=text, force_terminal=True, width=120, color_system=None)
    display = Display(console, "job", OBJECTIVE, trials)
    with display:
        for one in trials[:2]:
            one.started, one.status = time.time() - 10, "running"
        report(display, trials[0], 1, 0.7)
        report(display, trials[1], 1, 0.8)
        report(display, trials[1], 2, 0.6)
        console.print(display._screen())
    shown = text.getvalue()
    assert "0/3 trials done · 2 running · 0 failed" in shown
    assert "best val_accuracy 0.8000  lr=0.05 (trial 1, epoch 1)" in shown
    assert "trial 0  epoch 1/4  val_accuracy 0.7000  lr=0.1" in shown
    assert "left" in shown


def test_a_failure_is_told_on_a_terminal_too() -> None:
    text, trials = StringIO(), [trial(0)]
    console = Console(file=text, force_terminal=True, width=120, color_system=None)
    with Display(console, "job", OBJECTIVE, trials) as display:
        end(display, trials[0], "failed", "RuntimeError: [no] such thing")
    assert "trial 0 failed · lr=0.1 · RuntimeError: [no] such thing" in text.getvalue()


def test_the_leaderboard_has_the_best_first_and_the_failed_last() -> None:
    text, trials = StringIO(), [trial(0), trial(1), trial(2)]
    trials[1].take({"epoch": 2, "val_accuracy": 0.9}, OBJECTIVE)
    trials[2].take({"epoch": 1, "val_accuracy": 0.95}, OBJECTIVE)
    trials[0].status, trials[0].reason = "failed", "[bold]no[/] memory"
    Console(file=text, width=120).print(leaderboard_table(trials, OBJECTIVE))
    rows = [line.split("│")[1:-1] for line in text.getvalue().splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row[:3]] for row in rows] == [
        ["1", "2", "0.9500"],
        ["2", "1", "0.9000"],
        ["", "0", ""],
    ]
    assert "failed [bold]no[/] memory" in text.getvalue()  # what users wrote is no markup of ours


def test_a_leaderboard_that_is_too_wide_has_one_column_for_all_keys() -> None:
    one = trial(0)
    one.assignment |= {f"part.some_long_key_{number}": 0.12345 for number in range(12)}
    one.label = label(one.assignment)
    for width, names in ((400, ["lr", "some_long_key_0"]), (80, ["configuration"])):
        console = Console(file=StringIO(), width=width)
        table = _that_fits(console, lambda by_key: leaderboard_table([one], OBJECTIVE, by_key=by_key))
        assert [column.header for column in table.columns][4 : 4 + len(names)] == names
        console.print(table)
        assert "…" not in console.file.getvalue()  # type: ignore[attr-defined]
