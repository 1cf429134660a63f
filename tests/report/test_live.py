import time
from io import StringIO
from typing import Any

import pytest
from conftest import eventually, experiment
from rich.console import Console

from tuner.cli.printing.summary import _fitting_table, _print, leaderboard_table, print_plan, print_result
from tuner.formatting import duration
from tuner.jobs.result import FAILED, INTERRUPTED, OK, Result
from tuner.objectives import Objective
from tuner.report.live import Display, refresh_interval
from tuner.report.phases import Phases
from tuner.spec.experiment import ExperimentSpec
from tuner.tracking.record.recorder import Links
from tuner.trials.generator import TrialGenerator
from tuner.trials.labels import label
from tuner.trials.trial import Mutation, Trial

SPEC = experiment(
    name="job", space={"optimizer.lr": {"grid": [0.1, 0.05, 0.025]}}, search={"kind": "grid"}, trial=experiment().trial
)
ACCURACY, SIZE = SPEC.objective, Objective(metric="parameters", mode="min")


def begun(count: int, spec: ExperimentSpec = SPEC) -> tuple[TrialGenerator, list[Trial]]:
    """A supply of so many trials, all of them begun."""
    generator = TrialGenerator(spec.model_copy(update={"budget": spec.budget.model_copy(update={"trials": count})}))
    trials = [trial for trial in (generator.next() for _ in range(count)) if trial is not None]
    assert len(trials) == count
    for trial in trials:
        trial.started, trial.status = time.time() - 10, "running"
    return generator, trials


def shown(display: Display, width: int = 120) -> str:
    console = Console(file=StringIO(), width=width)
    console.print(display._screen())
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def report(display: Display, one: Trial, epoch: int, value: float) -> None:
    metrics = {"epoch": epoch, "val_accuracy": value}
    one.take(metrics, ACCURACY)
    display.trial_reported(one, metrics)


def end(display: Display, one: Trial, status: Any, reason: str = "") -> None:
    one.end(status, reason)
    display.trial_ended(one)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.6, "1m 00s"), (42.2, "42s"), (185, "3m 05s"), (7800, "2h 10m")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.slow
def test_a_screen_that_cannot_be_drawn_ends_neither_its_thread_nor_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Display) -> Any:
        raise ValueError("it broke")

    text, told = StringIO(), list[Exception]()
    monkeypatch.setattr(Display, "_screen", refuse)
    console = Console(file=text, force_terminal=True, width=120, color_system=None)
    with Display(console, SPEC, begun(1)[0], fault=told.append) as display:
        seen = len(told)
        assert eventually(lambda: len(told) > seen + 1)
        display.print_line("a line")
    assert "a line" in text.getvalue() and not display._drawing.is_alive()


def test_a_log_gets_plain_lines_with_what_has_been_and_what_is_left() -> None:
    text, (generator, trials) = StringIO(), begun(2)
    display = Display(Console(file=text, width=60), SPEC, generator)
    with display:
        for one in trials:
            for epoch in (1, 2, 3, 4):
                report(display, one, epoch, 0.5 + epoch / 10)
            end(display, one, "completed")
    waiting, *lines = text.getvalue().splitlines()
    assert waiting == "starting workers ..."
    assert len(lines) == 2  # wider than the console, and still one line each
    assert lines[0].startswith("[1/2] trial 0 completed · lr=0.1 · val_accuracy 0.9000 in epoch 4")
    assert lines[0].endswith("left")
    assert "left" not in lines[1]
    assert "\x1b" not in text.getvalue()


def test_a_log_tells_which_trials_a_scheduler_ended_and_which_go_on_as_copies() -> None:
    text, (generator, trials) = StringIO(), begun(2)
    display = Display(Console(file=text, width=60), SPEC, generator)
    report(display, trials[0], 1, 0.5)
    end(display, trials[0], "pruned", "asha after epoch 1")
    mutation = Mutation(2, 0, trials[1].assignment, {"optimizer.lr": 0.02})
    trials[1].mutate(mutation, trials[1].config, "there")
    display.trial_mutated(trials[1], mutation)
    first, second = text.getvalue().splitlines()
    assert "trial 0 pruned · lr=0.1 · val_accuracy 0.5000 in epoch 1 · asha after epoch 1" in first
    assert second == "trial 1 continues as a copy of trial 0 after epoch 2 · lr=0.02"


def test_a_terminal_shows_progress_the_best_so_far_and_what_runs() -> None:
    text, (generator, trials) = StringIO(), begun(2)
    generator, trials = begun(3)
    trials[2].started, trials[2].status = None, "pending"
    console = Console(file=text, force_terminal=True, width=120, color_system=None)
    display = Display(console, SPEC, generator)
    with display:
        report(display, trials[0], 1, 0.7)
        report(display, trials[1], 1, 0.8)
        report(display, trials[1], 2, 0.6)
        console.print(display._screen())
    there = text.getvalue()
    assert "0/3 trials done · 2 running · 0 failed" in there
    assert "best val_accuracy 0.8000  lr=0.05 (trial 1, epoch 1)" in there
    assert "trial 0  epoch 1/4  val_accuracy 0.7000  lr=0.1" in there
    assert "left" in there


@pytest.mark.slow
def test_a_screen_is_drawn_again_by_itself_until_the_job_ends() -> None:
    text, (generator, trials) = StringIO(), begun(1)
    with Display(Console(file=text, force_terminal=True, width=120, color_system=None), SPEC, generator) as display:
        assert eventually(lambda: "0/1 trials done" in text.getvalue())
        end(display, trials[0], "completed")
        assert eventually(lambda: "1/1 trials done" in text.getvalue())
    there = text.getvalue()
    time.sleep(1)
    assert text.getvalue() == there


def test_a_log_that_keeps_every_screen_gets_fewer_as_time_goes_by() -> None:
    elapsed, screens = 0.0, 0
    while elapsed < 24 * 3600:
        elapsed += refresh_interval(elapsed, in_a_log=True)
        screens += 1
    assert screens < 20_000  # some 2 KB each
    assert refresh_interval(0, in_a_log=True) <= 1
    assert refresh_interval(24 * 3600, in_a_log=False) < 1


def test_on_a_terminal_only_what_is_not_on_the_screen_gets_a_line() -> None:
    text, (generator, trials) = StringIO(), begun(3)
    display = Display(Console(file=text, force_terminal=True, width=120, color_system=None), SPEC, generator)
    for one, status in zip(trials, ("completed", "pruned", "failed"), strict=True):
        report(display, one, 1, 0.5)
        end(display, one, status, "RuntimeError: [no] such thing")
    [line] = text.getvalue().splitlines()
    assert line.startswith("[3/3] trial 2 failed · lr=0.025 · val_accuracy 0.5000 in epoch 1")
    assert "RuntimeError: [no] such thing" in line
    assert "2/3 trials done · 0 running · 1 pruned · 1 failed" in shown(display)


def test_what_is_left_counts_the_epochs_left_and_not_those_of_trials_that_ended_early() -> None:
    generator, trials = begun(3)
    display = Display(Console(file=StringIO()), SPEC, generator)
    display._began -= 100  # seconds ago
    assert display._seconds_left() is None
    report(display, trials[0], 1, 0.5)
    end(display, trials[0], "pruned")
    report(display, trials[1], 1, 0.5)
    # 50 seconds an epoch; three epochs of the second trial and four of the third.
    assert display._seconds_left() == pytest.approx(350, rel=0.01)


def test_trials_that_have_not_been_asked_for_are_as_long_as_those_that_ended() -> None:
    generator = TrialGenerator(experiment(search={"kind": "bayesian", "trials": 10}))
    display = Display(Console(file=StringIO()), SPEC, generator)
    first, second = (generator.next() for _ in range(2))
    assert first and second
    for epoch in (1, 2):
        report(display, first, epoch, 0.5)
    end(display, first, "pruned")
    assert display._epochs_left() == 4 + 8 * 2
    assert "1/10 trials done" in shown(display)


def test_a_function_of_ones_own_has_no_length_that_is_known() -> None:
    trial = {"target": "json:dumps", "config": {}}
    space = {"config.a": {"uniform": [0, 1]}}
    spec = experiment(trial=trial, space=space, objective={"metric": "val_accuracy", "mode": "max"})
    generator, trials = begun(3, spec)
    display = Display(Console(file=StringIO()), spec, generator)
    display._began -= 100
    report(display, trials[0], 1, 0.5)
    assert "epoch 1  val_accuracy 0.5000" in shown(display)
    for epoch in (2, 3, 4):
        report(display, trials[0], epoch, 0.5)
    end(display, trials[0], "completed")
    assert display._epochs_left() == 8  # as many as the first made, for each of the two others


def test_a_job_that_goes_on_counts_what_it_had_and_knows_its_best() -> None:
    past = [Trial(0, {"optimizer.lr": 0.1}, SPEC.trial_config({"optimizer.lr": 0.1}), "lr=0.1")]
    for epoch, value in enumerate((0.8, 0.9, 0.7, 0.6), start=1):
        past[0].take({"epoch": epoch, "val_accuracy": value}, ACCURACY)
    past[0].end("completed", "")
    generator = TrialGenerator(SPEC, past)
    display = Display(Console(file=StringIO()), SPEC, generator)
    trial = generator.next()
    assert trial is not None
    display._began -= 100
    trial.status = "running"
    report(display, trial, 1, 0.5)
    assert display._seconds_left() == pytest.approx(700, rel=0.01)  # the epochs of the past took none of the time
    assert "1/3 trials done" in shown(display)
    assert "best val_accuracy 0.9000  lr=0.1 (trial 0, epoch 2)" in shown(display)


class TestLeaderboard:
    def rows(self, trials: list[Trial], *objectives: Objective) -> tuple[list[list[str]], str]:
        text = StringIO()
        Console(file=text, width=200).print(leaderboard_table(trials, objectives))
        lines = [line.split("│")[1:-1] for line in text.getvalue().splitlines() if line.startswith("│")]
        return [[cell.strip() for cell in line] for line in lines], text.getvalue()

    def test_it_has_the_best_first_and_the_failed_last(self) -> None:
        _, trials = begun(3)
        trials[1].take({"epoch": 2, "val_accuracy": 0.9}, ACCURACY)
        trials[2].take({"epoch": 1, "val_accuracy": 0.95}, ACCURACY)
        trials[0].end("failed", "[bold]no[/] memory")
        rows, text = self.rows(trials, ACCURACY)
        assert [row[:3] for row in rows] == [["1", "2", "0.9500"], ["2", "1", "0.9000"], ["", "0", ""]]
        assert "failed [bold]no[/] memory" in text  # what users wrote is no markup of ours

    def test_it_marks_the_front_and_says_what_is_missed(self) -> None:
        _, trials = begun(3)
        for one, accuracy, parameters in zip(trials, (0.8, 0.9, 0.85), (1000, 2000, 3000.0), strict=True):
            one.take({"epoch": 3, "val_accuracy": accuracy, "parameters": parameters}, ACCURACY)
            one.end("completed", "")
        trials[2].violations = {"latency_ms <= 2": 0.5, "val_loss <= 1": -0.5}
        rows, text = self.rows(trials, ACCURACY, SIZE)
        assert "Leaderboard: the Pareto front (*) first" in text
        assert [row[:4] for row in rows] == [
            ["1*", "1", "0.9000", "2,000"],
            ["2*", "0", "0.8000", "1,000"],
            ["3", "2", "0.8500", "3,000"],
        ]
        assert rows[2][-1] == "completed violates latency_ms <= 2"

    def test_it_shows_what_the_best_report_was_trained_with(self) -> None:
        _, [one] = begun(1)
        one.take({"epoch": 1, "val_accuracy": 0.9}, ACCURACY)
        one.mutate(Mutation(1, 0, one.assignment, {"optimizer.lr": 0.777}), one.config, None)
        one.take({"epoch": 2, "val_accuracy": 0.5}, ACCURACY)
        assert "0.777" not in self.rows([one], ACCURACY)[1]

    def test_a_key_that_does_not_count_in_a_trial_is_empty(self) -> None:
        _, trials = begun(2)
        trials[0].assignment = {"optimizer.kind": "adam", "optimizer.beta1": 0.85}
        trials[1].assignment = {"optimizer.kind": "sgd"}
        rows, _ = self.rows(trials, ACCURACY)
        assert [row[4:6] for row in rows] == [["adam", "0.85"], ["sgd", ""]]

    def test_one_that_is_too_wide_has_one_column_for_all_keys(self) -> None:
        _, [one] = begun(1)
        one.assignment |= {f"part.some_long_key_{number}": 0.12345 for number in range(12)}
        one.label = label(one.assignment)
        for width, names in ((400, ["lr", "some_long_key_0"]), (80, ["configuration"])):
            console = Console(file=StringIO(), width=width)
            table = _fitting_table(console, lambda by_key: leaderboard_table([one], [ACCURACY], by_key=by_key))
            assert [column.header for column in table.columns][4 : 4 + len(names)] == names
            console.print(table)
            assert "…" not in console.file.getvalue()  # type: ignore[attr-defined]


class TestPlan:
    def said(self, spec: ExperimentSpec) -> str:
        text = StringIO()
        print_plan(Console(file=text, width=120), spec, "sqlite:///mlflow.db")
        return text.getvalue()

    def test_a_search_that_learns_shows_its_space_and_why_this_sampler(self) -> None:
        spec = experiment(
            space={
                "optimizer.kind": {"choice": ["sgd", "adam"]},
                "optimizer.beta1": {"uniform": [0.8, 0.9], "when": {"optimizer.kind": "adam"}},
            },
            search={"kind": "bayesian", "trials": 7},
            scheduler={"kind": "asha"},
            constraints=["parameters <= 100000"],
        )
        text = self.said(spec)
        assert "uniform" in text and "optimizer.kind is adam" in text
        for words in ("7 of 4 epochs, bayesian search", "tpe", "parameters <= 100000", "scheduler   asha"):
            assert words in text

    def test_several_objectives_are_named_with_their_directions(self) -> None:
        text = self.said(experiment(objective=["val_accuracy", "parameters"]))
        assert "objective   max val_accuracy, min parameters" in text


class TestResult:
    def said(self, trials: list[Trial], *objectives: str, **more: Any) -> str:
        spec = experiment(objective=list(objectives or ["val_accuracy"]))
        links = Links("1", "2", "mlflow ui", "http://127.0.0.1:5000")
        given: dict[str, Any] = {
            "spec": spec,
            "trials": trials,
            "winner": None,
            "test": {},
            "folder": "runs",
            "links": links,
            "status": OK,
            "ended_early": "",
            "seconds": 61.0,
            "record_failure": None,
        }
        text = StringIO()
        print_result(Console(file=text, width=200), Result(**(given | more)))
        return text.getvalue()

    def test_it_names_the_winner_its_scores_and_how_many_are_on_the_front(self) -> None:
        _, [one] = begun(1)
        one.take({"epoch": 2, "val_accuracy": 0.9, "parameters": 1234}, ACCURACY)
        one.end("completed", "")
        text = self.said([one], "val_accuracy", "parameters", winner=one, test={"test_accuracy": 0.87})
        assert "best        trial 0: optimizer.lr=0.1" in text
        assert "val_accuracy 0.9000  parameters 1,234 in epoch 2" in text
        assert "1 trial, drawn in pareto.html" in text
        assert "test_accuracy 0.8700" in text and "1m 01s" in text

    def test_without_a_winner_it_says_why(self) -> None:
        _, [one] = begun(1)
        assert "no trial has a result" in self.said([one], status=FAILED)
        one.take({"epoch": 2, "val_accuracy": 0.9}, ACCURACY)
        one.violations = {"latency_ms <= 1": 1.0}
        one.end("completed", "")
        assert "no trial satisfies the constraints" in self.said([one], status=FAILED)
        one.status = "failed"
        assert "no trial has a result" in self.said([one], status=FAILED)

    def test_an_interrupted_job_says_how_to_go_on_and_one_that_ended_early_says_why(self) -> None:
        assert "--resume continues the job" in self.said([], status=INTERRUPTED, ended_early="interrupted")
        assert "ended early: timeout" in self.said([], ended_early="timeout")

    def test_the_first_traceback_is_shown_and_the_others_are_counted(self) -> None:
        _, trials = begun(3)
        for one in trials[1:]:
            one.end("failed", "boom", f"Traceback of {one.number}")
        text = self.said(trials)
        assert "Traceback of 1" in text and "Traceback of 2" not in text and "and 1 more" in text

    def test_it_tells_how_long_each_phase_took_and_the_report_last(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shutil.which", lambda command: f"/usr/bin/{command}")
        phases = {"Ray": 7.7, "trials": 30.0, "test": 0.1, "report": 2.0, "record": 4.0}
        text = self.said([], phases=phases, paused=256.0, report="/a b/report.html")
        assert "took        1m 01s, and 4m 16s paused (Ray 8s, trials 30s; then report 2s, record 4s)" in text
        last, command = text.splitlines()[-2:]
        assert last == "report      /a b/report.html"
        assert command.split(maxsplit=1)[1] == "'/a b/report.html'"
        assert text.index("compare ") < text.index("report      /")
        assert "report  " not in self.said([], report="")

    def test_a_path_is_not_broken(self) -> None:
        path = f"/{'long/' * 60}report.html"
        assert path in self.said([], report=path).split()


def test_the_first_trial_that_begins_ends_the_wait_for_workers() -> None:
    generator, trials = begun(2)
    phases = Phases(Console(file=StringIO()))
    display = Display(Console(file=StringIO(), force_terminal=True), SPEC, generator, phases)
    with display:
        assert "starting workers" in shown(display)
        display.trial_started(trials[0])
        display.trial_started(trials[1])
        assert "starting workers" not in shown(display)
    phases.end()
    assert list(phases.seconds) == ["workers", "trials"]


def test_scores_that_are_small_are_told_apart() -> None:
    generator, trials = begun(2)
    display = Display(Console(file=StringIO()), SPEC, generator)
    report(display, trials[0], 1, 3.21e-5)
    report(display, trials[1], 1, 3.22e-5)
    assert "3.22e-05" in shown(display) and "3.21e-05" in shown(display)


def test_the_status_line_fits_the_terminal() -> None:
    for width, name in ((80, "digits-quick"), (80, "a-name-that-is-" * 6), (200, "digits-quick")):
        generator, trials = begun(3, SPEC.model_copy(update={"name": name}))
        console = Console(file=StringIO(), width=width)
        display = Display(console, SPEC.model_copy(update={"name": name}), generator)
        ends: list[Any] = ["pruned", "failed", "diverged"]
        for one, status in zip(trials, ends, strict=True):
            report(display, one, 1, 0.5)
            one.end(status, "")
        display._began -= 100_000
        console.print(display._screen())
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert len(lines) == (2 if width == 200 else 3)  # the last one is the best
        text = " ".join(lines)
        for words in ("1/3 trials done · 0 running · 1 pruned · 1 failed · 1 diverged", "27h 46m", "left", name[:8]):
            assert words in text


@pytest.mark.parametrize("width", [80, 40, 10])
def test_a_leaderboard_on_a_narrow_terminal_wraps_what_is_long(width: int) -> None:
    _, [one] = begun(1)
    one.assignment = {"model.name": "a_model_" + "with_a_very_long_name_" * 6, "optimizer.lr": 0.1}
    one.label = label(one.assignment)
    one.end("failed", "RuntimeError: " + "long" * 40)
    console = Console(file=StringIO(), width=width)
    _print(console, lambda by_key: leaderboard_table([one], [ACCURACY], by_key=by_key))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    cells = [line.split("│") for line in text.splitlines() if line.startswith("│")]
    assert one.assignment["model.name"] in "".join("".join(line).replace(" ", "") for line in zip(*cells, strict=True))
    assert "failed" in "".join("".join(line).replace(" ", "") for line in zip(*cells, strict=True))
