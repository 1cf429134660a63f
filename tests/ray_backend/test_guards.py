"""What a job does when something in it raises: each listener, the search, the schedulers, the control loop, its end."""

import json
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from ray.tune.schedulers import FIFOScheduler
from rich.console import Console

from tuner.jobs.driver import run
from tuner.jobs.result import FAILED, OK, Result
from tuner.jobs.sync import sync
from tuner.jobs.winner import Winner
from tuner.ray_backend.guards import GuardedCallback, InternalErrors
from tuner.report import html
from tuner.report.live import Display
from tuner.search.searcher import Plan
from tuner.spec.experiment import ExperimentSpec
from tuner.tracking.record.recorder import Recorder
from tuner.tracking.tensorboard import TensorBoard
from tuner.trials.callback import TrialCallback
from tuner.trials.events import Event, TrialReported
from tuner.trials.generator import TrialGenerator
from tuner.trials.journal import Journal, recorded_event
from tuner.trials.resume.reading import read_past
from tuner.trials.retention import Retention
from tuner.trials.stopping import StoppingCriteria

pytestmark = pytest.mark.slow

CODE = """
import tempfile
import time
from pathlib import Path
from ray import tune

def train(config):
    for epoch in range(1, 4):
        time.sleep(config.get("pause", 0))
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "state").write_text("")
            checkpoint = tune.Checkpoint.from_directory(folder)
            tune.report({"loss": config["lr"] / epoch}, checkpoint=checkpoint)
"""


@pytest.mark.parametrize("event", [name for name in vars(TrialCallback) if not name.startswith("_")])
def test_a_wall_lets_every_event_through(event: str) -> None:
    heard: list[tuple[Any, ...]] = []
    inner = type("Hears", (TrialCallback,), {event: lambda self, *what: heard.append(what)})()
    getattr(GuardedCallback(inner, InternalErrors(print)), event)("a trial", "and more")
    assert heard == [("a trial", "and more")]


def test_a_fault_counts_whatever_there_is_of_others_already() -> None:
    internal_errors = InternalErrors(lambda text: None)
    internal_errors.note("the screen", ValueError("x" * 50_000), minor=True)
    assert internal_errors.reason == ""
    internal_errors.note("the control loop", RuntimeError("broken"))
    assert "broken" in internal_errors.reason


class Place:
    """Where jobs are run, and what came of the last one."""

    def __init__(self, folder: Path, module: str, store: Path) -> None:
        shutil.copy(store, folder / "store.db")
        self.uri = f"sqlite:///{folder}/store.db"
        self.folder = folder
        self.module = module
        self.text = ""

    def spec(self, **parts: Any) -> ExperimentSpec:
        whole = {
            "name": "walls",
            "objective": {"metric": "loss", "mode": "min"},
            "trial": {"target": f"{self.module}:train"},
            "space": {"config.lr": {"grid": [0.1, 0.2, 0.3]}},
            "search": {"kind": "grid"},
            "storage": str(self.folder / "runs"),
            "tracking": {"uri": self.uri},
        }
        return ExperimentSpec.model_validate(whole | parts)

    def run(self, *, resume: bool = False, **parts: Any) -> Result:
        text = StringIO()
        result = run(self.spec(**parts), source=self.folder, console=Console(file=text, width=200), resume=resume)
        self.text = text.getvalue()
        return result

    def statuses(self) -> tuple[str, list[str]]:
        """MLflow's status of the job's run, and those of its trials."""
        client = MlflowClient(self.uri)
        experiment = client.get_experiment_by_name("walls")
        assert experiment is not None
        parent, trials = "", []
        for found in client.search_runs([experiment.experiment_id]):
            if found.data.tags["tuner.role"] == "parent":
                parent = found.info.status
            else:
                trials.append(found.info.status)
        return parent, trials


@pytest.fixture
def place(in_one_process: None, own: Callable[[str], str], tmp_path: Path, empty_store: Path) -> Place:
    return Place(tmp_path, own(CODE), empty_store)


def refuse(*arguments: Any, **more: Any) -> Any:
    raise ValueError("it broke")


def _is_report(event: Event) -> bool:
    return isinstance(event, TrialReported)


@pytest.mark.usefixtures("thread_writer")
class TestListeners:
    @pytest.mark.parametrize(
        ("listener", "event"),
        [
            (TrialGenerator, "trial_reported"),
            (TrialGenerator, "trial_ended"),
            (StoppingCriteria, "trial_reported"),
            (Retention, "trial_saved"),
            (Retention, "trial_ended"),
        ],
    )
    def test_a_fault_is_told_once_and_the_trials_go_on(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, listener: type, event: str
    ) -> None:
        monkeypatch.setattr(listener, event, refuse)
        result = place.run()
        assert [trial.status for trial in result.trials] == ["completed"] * 3
        assert result.status == FAILED
        assert "it broke" in result.ended_early and f"{listener.__name__}.{event}" in result.ended_early
        assert place.text.count("Traceback") == 1
        assert place.statuses() == ("FAILED", ["FINISHED"] * 3)
        [internal_errors] = place.folder.glob("runs/walls/*/report/faults.txt")
        assert "it broke" in internal_errors.read_text()

    def test_a_fault_of_the_record_is_told_once_and_the_trials_go_on(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put = Recorder.put
        monkeypatch.setattr(Recorder, "put", lambda self, event: (refuse if _is_report(event) else put)(self, event))
        result = place.run()
        assert [trial.status for trial in result.trials] == ["completed"] * 3
        assert result.status == FAILED
        assert "it broke" in result.ended_early and "Recorder.put" in result.ended_early
        assert place.text.count("Traceback") == 1
        assert place.statuses() == ("FAILED", ["FINISHED"] * 3)

    @pytest.mark.parametrize(
        ("listener", "event"),
        [(Display, "trial_ended"), (TensorBoard, "trial_reported")],
    )
    def test_what_is_only_looked_at_costs_nothing(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, listener: type, event: str
    ) -> None:
        monkeypatch.setattr(listener, event, refuse)
        result = place.run(tracking={"uri": place.uri, "tensorboard": True})
        assert (result.status, result.ended_early) == (OK, "")
        assert place.text.count("Traceback") == 1
        assert place.statuses() == ("FINISHED", ["FINISHED"] * 3)

    @pytest.mark.parametrize("error", [ValueError("it broke"), OSError(5, "it broke")])
    def test_without_a_journal_the_job_ends_cleanly(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def refuse_line(self: Journal) -> None:
            if any('"reported"' in line for line in self._lines):
                raise error
            append(self)

        append = Journal._append
        monkeypatch.setattr(Journal, "_append", refuse_line)
        monkeypatch.setattr(Journal, "closed", lambda *arguments, **more: None)
        monkeypatch.setattr(Journal, "recorded", lambda self, end: self._follow(recorded_event(end)))
        result = place.run()
        assert result.status == FAILED and "it broke" in result.ended_early
        parent, trials = place.statuses()
        assert parent == "FAILED" and "RUNNING" not in trials


@pytest.mark.usefixtures("thread_writer")
class TestReports:
    def test_one_that_breaks_what_takes_it_costs_its_trial(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        decide = FIFOScheduler.on_trial_result

        def refuse_one(self: Any, controller: Any, trial: Any, result: dict[str, Any]) -> str:
            if json.loads(result["config/task"])["trial"]["config"]["lr"] == 0.2:
                raise ArithmeticError("it broke")
            return str(decide(self, controller, trial, result))

        monkeypatch.setattr(FIFOScheduler, "on_trial_result", refuse_one)
        result = place.run()
        assert [trial.status for trial in result.trials] == ["completed", "failed", "completed"]
        assert "it broke" in result.trials[1].reason and "Traceback" in result.trials[1].traceback


@pytest.mark.usefixtures("thread_writer")
class TestTheJob:
    def test_a_search_that_fails_ends_with_the_trials_that_there_are(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask = Plan.ask
        monkeypatch.setattr(Plan, "ask", lambda self: ask(self) if len(self._waiting) > 1 else refuse())
        result = place.run()
        assert [trial.status for trial in result.trials] == ["completed"] * 2
        assert result.status == FAILED and "the search" in result.ended_early
        assert place.statuses() == ("FAILED", ["FINISHED"] * 2)
        monkeypatch.setattr(Plan, "ask", ask)
        again = place.run(resume=True)
        assert [trial.status for trial in again.trials] == ["completed"] * 3 and again.status == OK

    def test_a_control_loop_that_fails_ends_cleanly(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        choose = FIFOScheduler.choose_trial_to_run

        def refuse_later(self: Any, controller: Any) -> Any:
            if any("loss" in trial.last_result for trial in controller.get_trials()):
                refuse()
            return choose(self, controller)

        monkeypatch.setattr(FIFOScheduler, "choose_trial_to_run", refuse_later)
        result = place.run(trial={"target": f"{place.module}:train", "config": {"pause": 0.2, "lr": 0.1}})
        assert result.status == FAILED and "the control loop" in result.ended_early
        assert place.text.count("Traceback") == 1
        parent, trials = place.statuses()
        assert parent == "FAILED" and "RUNNING" not in trials
        assert "interrupted" in [trial.status for trial in result.trials]
        monkeypatch.setattr(FIFOScheduler, "choose_trial_to_run", choose)
        again = place.run(resume=True, trial={"target": f"{place.module}:train", "config": {"pause": 0.2, "lr": 0.1}})
        assert [trial.status for trial in again.trials] == ["completed"] * 3 and again.status == OK

    @pytest.mark.parametrize(
        ("owner", "name"), [(Winner, "_of_winner"), (html, "write_html"), (Retention, "give_up_worse")]
    )
    def test_an_end_that_fails_in_part_keeps_the_answer(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
    ) -> None:
        if owner is Retention:
            monkeypatch.setattr(Retention, "trial_ended", lambda *arguments: None)
        monkeypatch.setattr(owner, name, refuse)
        result = place.run()
        assert result.winner is not None and result.winner.assignment == {"config.lr": 0.1}
        assert result.status == FAILED and "it broke" in place.text
        assert place.statuses() == ("FAILED", ["FINISHED"] * 3)
        [internal_errors] = place.folder.glob("runs/walls/*/report/faults.txt")
        assert "it broke" in internal_errors.read_text()


def test_a_writer_that_is_killed_holds_up_nothing_and_sync_makes_up_for_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Recorder.put

    def kill(self: Recorder, *arguments: Any) -> None:
        assert self._writer is not None
        self._writer._process.kill()
        put(self, *arguments)

    monkeypatch.setattr(Recorder, "put", kill)
    result = place.run()
    assert [trial.status for trial in result.trials] == ["completed"] * 3
    assert "the process that writes" in str(result.record_failure)
    monkeypatch.setattr(Recorder, "put", put)
    sync(place.spec(), place.folder, None)
    assert place.statuses() == ("FINISHED", ["FINISHED"] * 3)
    assert read_past(place.spec(), result.folder, "job").is_finished


def test_what_cannot_be_said_is_in_the_record_all_the_same() -> None:
    internal_errors = InternalErrors(refuse)
    internal_errors.note("here", ArithmeticError("it broke"))
    internal_errors.note("here", ArithmeticError("again"))  # of each kind the first
    assert (
        "it broke" in internal_errors.text and "again" not in internal_errors.text and "here" in internal_errors.reason
    )
