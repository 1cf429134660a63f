"""Checkpoints that a crash left damaged: real jobs whose processes are killed, and whose files are cut short."""

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from commands import tuner
from conftest import eventually, start_job
from disturbances import Disturber, disturbed
from in_process import in_process
from mlflow import MlflowClient
from pyarrow.fs import FileSystem, LocalFileSystem, SubTreeFileSystem
from ray import tune
from thread_writers import thread_writers
from tune_events import Ray

from tuner.jobs.result import FAILED, OK
from tuner.ray_backend.worker.checkpoints import latest_first
from tuner.spec.loader import load
from tuner.storage.filesystem import resolved
from tuner.train.checkpoint import Save
from tuner.train.loop import fit
from tuner.train.trial_config import TrialConfig
from tuner.trials.events import event_of
from tuner.trials.layout import folder_name

JOB = """
name: job
objective: val_loss
trial:
  data: {kind: digits, batch_size: 4, limit: 300}
  model: {kind: cnn, width1: 4, width2: 8, hidden: 16}
  optimizer: {kind: sgd, lr: 0.01, momentum: 0.9}
  epochs: 7
space:
  optimizer.lr: {grid: [0.01]}
search: {kind: grid}
resources: {cpu: 1}
storage: runs
tracking: {register: false}
"""


class Disturbed:
    """A job that is disturbed, and what it leaves behind."""

    def __init__(self, folder: Path, text: str = JOB) -> None:
        self.folder = folder
        (folder / "job.yaml").write_text(text)
        self.disturber = Disturber(folder)

    def run_and(self, disturb: Callable[[], object], *, status: int) -> str:
        """Run it in this process, on the Ray of all tests, while something disturbs it. Returns what it has said."""
        ended, output = disturbed(disturb, self.folder, "run", "job.yaml")
        assert (ended, "Traceback" in output) == (status, False), output
        return output

    def kill_after(self, checkpoints: int) -> None:
        """Run it in a process of its own, and kill that and all that it has started, some checkpoints later."""
        process = start_job(self.folder, "job.yaml")
        self.disturber = Disturber(self.folder, process.pid)
        try:
            self.halt(checkpoints)
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        finally:
            process.kill()
            output, _ = process.communicate()
        assert "Traceback" not in output, output

    def go_on(self) -> str:
        """Go on with it in this process, where its trials are, too. Returns what it has said."""
        with in_process(), thread_writers():
            status, output = tuner(self.folder, "run", "job.yaml", "--resume")
        assert (status, "Traceback" in output) == (OK, False), output
        return output

    @property
    def events(self) -> list[dict[str, Any]]:
        """The journal, as far as it is written, its places whole."""
        for journal in self.folder.glob("runs/job/*/journal.jsonl"):
            lines = [line for line in journal.read_text().splitlines(keepends=True) if line.endswith("\n")]
            change = partial(resolved, folder=str(journal.parent))
            return [event_of(line).placed(change).model_dump() for line in lines]
        return []

    def saved(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == "saved"]

    def halt(self, after: int) -> psutil.Process:
        """Stop the process that trains where it is, some checkpoints later, and let the driver hear of the last."""
        assert eventually(lambda: bool(self.events), 600)
        worker = self.disturber.worker()
        assert eventually(lambda: len(self.saved()) >= after, 600)
        worker.suspend()
        seen = -1
        while len(self.saved()) != seen:
            seen = len(self.saved())
            time.sleep(1)
        return worker

    def run(self) -> Any:
        client = self.client
        [found] = client.search_runs([client.get_experiment_by_name("job").experiment_id], "tags.`tuner.trial` = '0'")
        return found

    @property
    def client(self) -> MlflowClient:
        uri = f"sqlite:///{self.folder}/mlflow.db"
        return MlflowClient(uri, registry_uri=uri)  # or it is the one that MLflow was told of last


def cut(checkpoint: str) -> None:
    """Leave half of a checkpoint's weights: as much as was on the disk when the power failed."""
    weights = Path(checkpoint, "model.pt")
    if weights.exists():  # else its process was stopped before it came to that: it is cut short already
        os.truncate(weights, weights.stat().st_size // 2)


def check_as_undisturbed(job: Disturbed, tmp_path: Path) -> None:
    """Its curves and its weights are those of a run that nothing has happened to, and each epoch was told once."""
    spec = load(job.folder / "job.yaml")
    [assignment] = spec.plan() or []
    config = spec.trial_config(assignment)
    assert isinstance(config, TrialConfig)
    alone: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any], save: Save) -> None:
        alone.append(metrics)
        folder = tmp_path / f"epoch-{metrics['epoch']}"
        folder.mkdir()
        save(folder)

    fit(config, spec.objective, report, device=torch.device("cpu"))
    run, client = job.run(), job.client
    for name in ("train_loss", "val_loss", "val_accuracy"):
        points = client.get_metric_history(run.info.run_id, name)
        assert [(point.step, point.value) for point in points] == [(each["epoch"], each[name]) for each in alone]
    reported: list[int] = []
    for event in job.events:
        if event["event"] == "started":  # what was reported after the last checkpoint before a kill is reported again
            reported = [epoch for epoch in reported if epoch <= event["epoch"]]
        elif event["event"] == "reported":
            reported.append(event["report"]["epoch"])
    assert reported == list(range(1, 8))
    last = job.saved()[-1]
    assert last["epoch"] == 7
    best = min(alone, key=lambda metrics: metrics["val_loss"])["epoch"]
    kept = Path(client.download_artifacts(run.info.run_id, "checkpoint"))
    for ours, theirs in ((kept, tmp_path / f"epoch-{best}"), (Path(last["best"]), tmp_path / f"epoch-{best}")):
        weights, expected = (torch.load(place / "model.pt", weights_only=True) for place in (ours, theirs))
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray", "thread_writer", "store_made")
@pytest.mark.parametrize("how_many", [1, 2])
def test_a_trial_that_is_killed_goes_on_from_the_last_checkpoint_that_can_be_read(
    tmp_path: Path, how_many: int
) -> None:
    job, saved = Disturbed(tmp_path), list[dict[str, Any]]()

    def disturb() -> None:
        worker = job.halt(after=3)
        there = sorted(tmp_path.glob("runs/job/*/trial-0000/checkpoint_*"))
        saved.extend(job.saved())
        latest = [event["latest"] for event in saved[-2:]]
        assert {str(path) for path in there} >= {*latest, saved[-1]["best"]}  # the last, the one before, the best
        assert len(there) <= 4  # and perhaps one that nobody has heard of yet
        for path in {*latest[-how_many:]} | ({str(path) for path in there} if how_many > 1 else set()):
            cut(path)
        worker.kill()

    output = job.run_and(disturb, status=OK)
    where = f"epoch {saved[-2]['epoch']}" if how_many == 1 else "the beginning"
    assert f"cannot be read: it resumes from {where}" in output
    assert "checkpoint_" in output and "model.pt" in output
    tags = job.run().data.tags
    assert saved[-1]["latest"] in tags["tuner.damaged"] and "model.pt" in tags["tuner.damaged"]
    assert tags["tuner.lost"] == "1"
    check_as_undisturbed(job, tmp_path)


@pytest.fixture(scope="module")
def killed(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job that was killed with all that it had started."""
    folder = tmp_path_factory.mktemp("killed")
    shutil.copy(empty_store, folder / "mlflow.db")
    Disturbed(folder).kill_after(checkpoints=4)
    return folder


@pytest.fixture
def killed_job(killed: Path, tmp_path: Path) -> Disturbed:
    """It, in a folder of the test's own."""
    return Disturbed(shutil.copytree(killed, tmp_path / "job"))


@pytest.mark.slow
def test_a_job_that_is_killed_goes_on_from_the_last_checkpoint_that_can_be_read(
    killed_job: Disturbed, tmp_path: Path
) -> None:
    job = killed_job
    saved = job.saved()
    cut(saved[-1]["latest"])
    output = job.go_on()
    assert f"cannot be read: it resumes from epoch {saved[-2]['epoch']}" in output
    tags = job.run().data.tags
    assert saved[-1]["latest"] in tags["tuner.damaged"]
    check_as_undisturbed(job, tmp_path)
    left = {str(path) for path in job.folder.glob("runs/job/*/trial-*/checkpoint_*")}
    assert left == {job.saved()[-1]["best"]}


@pytest.mark.slow
def test_a_job_goes_on_from_the_checkpoint_before_one_that_is_gone(killed_job: Disturbed) -> None:
    job = killed_job
    saved = job.saved()
    shutil.rmtree(saved[-1]["latest"])
    job.go_on()
    sessions = [event["epoch"] for event in job.events if event["event"] == "started"]
    assert sessions == [0, saved[-2]["epoch"]]


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray", "thread_writer", "store_made")
def test_a_winner_whose_checkpoint_is_damaged_is_told_and_not_registered(tmp_path: Path) -> None:
    # More trials than the machine has room for at once: when the first has ended, there is another one to wait for.
    others = ", ".join(f"1.0e-{9 + number}" for number in range(os.cpu_count() or 1))
    text = JOB.replace("[0.01]", f"[0.01, {others}]").replace("register: false", "register: true")
    job = Disturbed(tmp_path, text)

    def ended() -> list[dict[str, Any]]:
        return [event for event in job.events if event["event"] == "ended" and event["trial"] == 0]

    def disturb() -> None:
        assert eventually(lambda: bool(ended()), 600)
        cut(ended()[0]["best"])

    output = job.run_and(disturb, status=FAILED)
    assert "best        trial 0" in output
    assert "the best trial's checkpoint cannot be read: is a damaged checkpoint: model.pt" in output
    assert "it was neither tested nor registered; tuner train FILE --trial 0 --output FOLDER trains it again" in output
    assert "test set" not in output and "models:/" not in output
    client = job.client
    assert not client.search_registered_models()
    [parent] = client.search_runs([job.run().info.experiment_id], "tags.`tuner.role` = 'parent'")
    assert parent.info.status == "FAILED"
    assert "model.pt" in parent.data.tags["tuner.damaged"]
    assert parent.data.tags["tuner.winner"] == "0"


class TestWhatThereIsToGoOnFrom:
    def checkpoints(self, root: Path, *folders: str) -> None:
        for folder in folders:
            (root / "job" / folder).mkdir(parents=True)

    @pytest.mark.parametrize("wrap", [lambda root: (LocalFileSystem(), f"{root}/"), lambda root: sub_tree(root)])
    def test_the_latest_and_then_those_before_it(
        self, tmp_path: Path, wrap: Callable[[Path], tuple[FileSystem, str]]
    ) -> None:
        self.checkpoints(
            tmp_path,
            *("trial-0001/checkpoint_000001", "trial-0001/checkpoint_000003", "trial-0001/other"),
            *("trial-0001-resumed-1/checkpoint_000000", "trial-0001-resumed-1/checkpoint_000001"),
            *("trial-0001-resumed-2/checkpoint_000000", "trial-0011/checkpoint_000000"),
        )
        files, root = wrap(tmp_path)
        latest = tune.Checkpoint(f"{root}job/trial-0001-resumed-1/checkpoint_000001", files)
        found = list(latest_first(latest))
        assert [checkpoint.path.removeprefix(f"{root}job/") for checkpoint in found] == [
            "trial-0001-resumed-1/checkpoint_000001",
            "trial-0001-resumed-1/checkpoint_000000",
            "trial-0001/checkpoint_000003",
            "trial-0001/checkpoint_000001",
        ]
        assert all(checkpoint.filesystem == files for checkpoint in found)

    def test_nothing_but_itself_where_there_is_no_other(self, tmp_path: Path) -> None:
        latest = tune.Checkpoint(f"{tmp_path}/job/trial-0001/checkpoint_000000", LocalFileSystem())
        assert [checkpoint.path for checkpoint in latest_first(latest)] == [latest.path]

    def test_folders_by_their_names(self) -> None:
        assert [folder_name(7, resumed) for resumed in (0, 2)] == ["trial-0007", "trial-0007-resumed-2"]


def sub_tree(root: Path) -> tuple[FileSystem, str]:
    """A file system whose paths are no local ones, as those of an object store are not."""
    (root / "bucket").mkdir()
    (root / "job").mkdir(exist_ok=True)
    (root / "bucket" / "job").symlink_to(root / "job")
    return SubTreeFileSystem(str(root), LocalFileSystem()), "bucket/"


def test_an_epoch_is_told_once_and_the_scheduler_is_not_asked_twice() -> None:
    ray = Ray()
    ray("trial_start")
    for epoch in (1, 2, 3):
        ray.report(epoch, 0.5 + epoch / 10)
        ray.save(f"checkpoint_00000{epoch - 1}")
    ray("trial_recover", trial={"get_error": lambda: "gone", "error_file": None})
    trial = ray.report(3, 0.8, **{"tuner.damaged": {"checkpoint_000002": "cut"}})
    assert trial.damaged == {"checkpoint_000002": "cut"}
    ray.save("checkpoint_000003")
    assert (trial.checkpoint, trial.latest, trial.latest_epoch) == ("checkpoint_000003", "checkpoint_000003", 3)
    ray.report(4, 0.7)
    assert [told[2] for told in ray.noted.told if told[0] == "reported"] == [1, 2, 3, 4]
    assert SimpleNamespace(best=trial.best, epoch=trial.best_epoch) == SimpleNamespace(best=0.8, epoch=3)
