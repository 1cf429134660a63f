"""What a job does when something in it raises: each listener, the search, the schedulers, the control loop, its end."""

import os
import shutil
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from rich.console import Console

from tuner import cluster
from tuner.ahead import ImportingAhead
from tuner.display import Display
from tuner.ending import Ending
from tuner.journal import Journal
from tuner.retention import Retention
from tuner.run import FAILED, OK, Result, run
from tuner.spec import ExperimentSpec
from tuner.supply import Supply
from tuner.tensorboard import TensorBoard
from tuner.tracking import Recorder
from tuner.trials import Listener
from tuner.walls import Faults, Walled

CODE = """
import tempfile
from pathlib import Path
from ray import tune

def train(config):
    for epoch in range(1, 4):
        odd = config["lr"] == 0.9 and epoch == 2
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "state").write_text("")
            checkpoint = tune.Checkpoint.from_directory(folder)
            tune.report({"acc": 1.0} if odd else {"loss": config["lr"] / epoch}, checkpoint=checkpoint)
"""


@pytest.fixture(scope="module")
def one_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One Ray for all the jobs."""
    environment, before = dict(os.environ), Path.cwd()
    os.chdir(tmp_path_factory.mktemp("ray"))
    capacity = cluster.connect(None)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cluster, "connect", lambda address: capacity)
            patch.setattr("tuner.run.cluster.disconnect", lambda: None)
            yield
    finally:
        cluster.disconnect()
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)


@pytest.mark.parametrize("event", [name for name in vars(Listener) if not name.startswith("_")])
def test_a_wall_lets_every_event_through(event: str) -> None:
    heard: list[tuple[Any, ...]] = []
    inner = type("Hears", (Listener,), {event: lambda self, *what: heard.append(what)})()
    getattr(Walled(inner, Faults(print)), event)("a trial", "and more")
    assert heard == [("a trial", "and more")]


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

    def run(self, **parts: Any) -> Result:
        text = StringIO()
        result = run(self.spec(**parts), source=self.folder, console=Console(file=text, width=200))
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
def place(one_ray: None, own: Callable[[str], str], tmp_path: Path, empty_store: Path) -> Place:
    return Place(tmp_path, own(CODE), empty_store)


def refuse(*arguments: Any, **more: Any) -> Any:
    raise ValueError("it broke")


@pytest.mark.usefixtures("thread_scribe")
class TestListeners:
    @pytest.mark.parametrize(
        ("listener", "event"),
        [
            (Supply, "trial_reported"),
            (Supply, "trial_ended"),
            (Ending, "trial_reported"),
            (Recorder, "trial_reported"),
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
        [faults] = place.folder.glob("runs/walls/*/report/faults.txt")
        assert "it broke" in faults.read_text()

    @pytest.mark.parametrize(
        ("listener", "event"),
        [(Display, "trial_ended"), (ImportingAhead, "trial_reported"), (TensorBoard, "trial_reported")],
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
        monkeypatch.setattr(Journal, "recorded", lambda *arguments, **more: None)
        result = place.run()
        assert result.status == FAILED and "it broke" in result.ended_early
        parent, trials = place.statuses()
        assert parent == "FAILED" and "RUNNING" not in trials


def test_what_cannot_be_said_is_in_the_record_all_the_same() -> None:
    faults = Faults(refuse)
    faults.note("here", ArithmeticError("it broke"))
    faults.note("here", ArithmeticError("again"))  # of each kind the first
    assert "it broke" in faults.text and "again" not in faults.text and "here" in faults.reason
