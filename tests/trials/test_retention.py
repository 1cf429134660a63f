"""Which files of the trials stay on disk, and whether they have room there."""

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from conftest import Played, eventually, experiment
from mlflow import MlflowClient

from tuner.errors import UserError
from tuner.jobs.preflight import check_disk_space
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.filesystem import delete
from tuner.tracking.record.messages import end_of
from tuner.tracking.record.recorder import Recorder
from tuner.trials.generator import planned
from tuner.trials.journal import Journal
from tuner.trials.labels import label
from tuner.trials.retention import Retention
from tuner.trials.status import Status
from tuner.trials.trial import Trial

SPACE = {"optimizer.lr": {"loguniform": [0.001, 0.1]}}


def trial_of(spec: ExperimentSpec, folder: Path, score: float, lr: float = 0.01, **more: float) -> Trial:
    """A trial that runs, with one report and its checkpoint."""
    number = len(list(folder.glob("trial-*")))
    assignment = {"optimizer.lr": lr}
    trial = Trial(number, assignment, spec.trial_config(assignment, number), label(assignment))
    trial.status, trial.started = "running", 1_700_000_000.0 + number
    place = folder / f"trial-{number:04d}" / "checkpoint_000000"
    place.mkdir(parents=True)
    (place / "model.pt").write_text("weights")
    trial.take({"epoch": 1, "val_accuracy": score} | more, spec.objective)
    trial.checkpoint = str(place)
    return trial


class TestWhoIsGivenUp:
    def given_up(self, spec: ExperimentSpec, trials: list[Trial], endings: list[str] | None = None) -> list[list[int]]:
        """The trials that are given up when each one ends, and at the end of the job."""
        there: list[Trial] = []
        said: list[list[int]] = [[]]
        retention = Retention(spec, there, lambda trial: said[-1].append(trial.number), delete)
        for trial, ending in zip(trials, endings or ["completed"] * len(trials), strict=True):
            there.append(trial)
            trial.end(ending, "")  # type: ignore[arg-type]
            retention.trial_ended(trial)
            said.append([])
        retention.give_up_worse()
        return said

    def test_those_that_are_not_among_the_best(self, tmp_path: Path) -> None:
        spec = experiment(checkpoints={"keep": 2})
        trials = [trial_of(spec, tmp_path, score, score) for score in (0.5, 0.7, 0.6, 0.4, 0.9)]
        assert self.given_up(spec, trials) == [[], [], [0], [3], [2], []]

    def test_none_where_all_are_kept(self, tmp_path: Path) -> None:
        spec = experiment(checkpoints={"keep": "all"})
        assert not any(self.given_up(spec, [trial_of(spec, tmp_path, score, score) for score in (0.5, 0.7)]))

    def test_one_that_goes_on_is_left_alone(self, tmp_path: Path) -> None:
        spec = experiment(checkpoints={"keep": 1})
        trials = [trial_of(spec, tmp_path, score, score) for score in (0.5, 0.4, 0.7)]
        assert self.given_up(spec, trials, ["interrupted", "pruned", "completed"]) == [[], [1], [], []]

    def test_a_front_is_whole_and_judged_at_the_end(self, tmp_path: Path) -> None:
        spec = experiment(objective=["val_accuracy", "parameters"], checkpoints={"keep": 1})
        scores = [(0.9, 900), (0.8, 100), (0.7, 500)]
        trials = [trial_of(spec, tmp_path, score, score, parameters=size) for score, size in scores]
        assert self.given_up(spec, trials) == [[], [], [], [2]]

    def test_a_configuration_is_judged_when_all_its_seeds_are_through(self, tmp_path: Path) -> None:
        spec = experiment(repeat=2, checkpoints={"keep": 2})
        trials = [trial_of(spec, tmp_path, score, lr) for score, lr in ((0.5, 0.1), (0.5, 0.1), (0.2, 0.2), (0.9, 0.2))]
        assert self.given_up(spec, trials) == [[], [], [], [0, 1], []]


class TestOfOneTrial:
    """Which checkpoints are there after each report, by their epochs."""

    def left(self, folder: Path, scores: list[float], ending: Status = "completed", **parts: Any) -> list[list[int]]:
        spec = experiment(**parts)
        trial = Trial(0, {}, spec.trial_config({}), "", status="running")
        played = Played(spec, Retention(spec, [trial], lambda trial: None, delete))
        seen = []
        for score in scores:
            played.report(trial, score, folder)
            seen.append(self.there(folder))
        played.end(trial, ending)
        return [*seen, self.there(folder)]

    def there(self, folder: Path) -> list[int]:
        return sorted(int(path.name.partition("_")[2]) for path in folder.glob("trial-0/checkpoint_*"))

    def test_the_best_the_last_and_the_one_before_it(self, tmp_path: Path) -> None:
        left = self.left(tmp_path, [0.5, 0.9, 0.6, 0.7, 0.8])
        assert left == [[1], [1, 2], [2, 3], [2, 3, 4], [2, 4, 5], [2]]

    def test_of_one_that_goes_on_later_all_three(self, tmp_path: Path) -> None:
        assert self.left(tmp_path, [0.9, 0.6, 0.7, 0.8], "interrupted")[-1] == [1, 3, 4]

    def test_of_a_population_all_until_the_job_is_over(self, tmp_path: Path) -> None:
        assert self.left(tmp_path, [0.9, 0.6, 0.7], scheduler={"kind": "pbt"})[-1] == [1, 2, 3]

    def test_one_that_cannot_be_read_is_not_the_one_before(self, tmp_path: Path) -> None:
        spec = experiment()
        trial = Trial(0, {}, spec.trial_config({}), "", status="running")
        played = Played(spec, Retention(spec, [trial], lambda trial: None, delete))
        for score in (0.5, 0.6, 0.7):
            played.report(trial, score, tmp_path)
        trial.damaged[str(tmp_path / "trial-0" / "checkpoint_3")] = "cut short"
        played.report(trial, 0.8, tmp_path)
        assert self.there(tmp_path) == [2, 4]


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thread_writer: None) -> str:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.slow
def test_files_go_when_mlflow_has_them_and_not_before(store: str, tmp_path: Path) -> None:
    spec = experiment(space=SPACE, search={"kind": "random", "trials": 2})
    lost, sound = trial_of(spec, tmp_path, 0.5), trial_of(spec, tmp_path, 0.6)
    gone = Path(lost.checkpoint or "")
    lost.checkpoint = str(gone.with_name("checkpoint_000009"))  # which MLflow cannot be given
    recorder = Recorder(spec, store)
    links = recorder.open("job", str(tmp_path), Path(), 2)
    journal = Journal(str(tmp_path), follow=recorder.put)
    for trial in (lost, sound):
        journal.trial_started(trial)
        trial.end("completed", "")
        journal.trial_ended(trial)
        journal.trial_dropped(trial)
    assert eventually(lambda: not Path(sound.checkpoint or "").exists())
    recorder.job_ended(end_of("FINISHED", {}))
    recorder.close()
    assert recorder.failure is not None and gone.exists()
    client = MlflowClient(store)
    runs = {run.data.tags.get("tuner.trial"): run for run in client.search_runs([links.experiment_id])}
    [file] = client.list_artifacts(runs["1"].info.run_id, "checkpoint")
    assert file.path == "checkpoint/model.pt"
    assert sorted(path.name for path in tmp_path.glob("trial-*")) == ["trial-0000", "trial-0001"]


class TestRoom:
    def with_free(self, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free, 0, free))

    def check(self, **parts: Any) -> None:
        space = {"model.hidden": {"int": [16, 1024]}}
        check_disk_space(
            experiment(**({"space": space, "search": {"kind": "random", "trials": 100}} | parts)), "http://x"
        )

    def test_a_job_whose_checkpoints_do_not_fit_is_not_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.with_free(monkeypatch, 10_000_000)
        self.check(checkpoints={"keep": 1})
        with pytest.raises(UserError, match=r"the checkpoints take up to .* and 10 MB are free") as raised:
            self.check(checkpoints={"keep": "all"})
        assert "storage" in str(raised.value) and "keep: 1" in str(raised.value)

    def test_a_population_keeps_every_epoch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.with_free(monkeypatch, 10_000_000)
        population: dict[str, Any] = {"scheduler": {"kind": "pbt"}, "space": SPACE}
        self.check(**population)
        trial = {"data": {"kind": "digits"}, "model": {"kind": "cnn"}, "epochs": 100}
        with pytest.raises(UserError, match="take up to"):
            self.check(trial=trial, **population)

    def test_an_artifact_store_on_the_same_disk_counts_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.with_free(monkeypatch, 10_000_000)
        space = {"model.hidden": {"int": [16, 1024]}}
        spec = experiment(space=space, search={"kind": "random", "trials": 100}, checkpoints={"keep": 1})
        with pytest.raises(UserError, match="take up to"):
            check_disk_space(spec, "sqlite:///mlflow.db")

    def test_a_model_that_no_memory_holds_leaves_no_checkpoint(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.with_free(monkeypatch, 10_000_000_000)
        wide = {"model.hidden": {"choice": [16, 2**20]}}
        trial = {"data": {"kind": "digits"}, "model": {"kind": "cnn", "width2": 2**16, "hidden": 16}, "epochs": 4}
        self.check(trial=trial, space=wide)

    def test_of_a_function_of_ones_own_nobody_knows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.with_free(monkeypatch, 0)
        trial = {"target": "builtins:print", "config": {"x": None}}
        spec = experiment(trial=trial, space={"config.x": {"choice": [1, 2]}}, objective={"metric": "y", "mode": "max"})
        check_disk_space(spec, "http://x")


def test_what_nobody_needs_is_cleared_up_and_what_resume_goes_on_with_is_not(tmp_path: Path) -> None:
    spec = experiment(search={"kind": "random", "trials": 3})
    trials = planned(spec) or []
    for number in range(3):
        for epoch in range(4):
            (tmp_path / f"trial-000{number}" / f"checkpoint_{epoch}").mkdir(parents=True)
    over, interrupted, silent = trials
    over.status, over.checkpoint, over.latest = "completed", str(tmp_path / "trial-0000/checkpoint_0"), None
    interrupted.checkpoint, interrupted.latest = (str(tmp_path / f"trial-0001/checkpoint_{c}") for c in (0, 3))
    interrupted.status = "interrupted"
    silent.status, silent.latest = (
        "completed",
        str(tmp_path / "trial-0002/checkpoint_2"),
    )  # its best report saved nothing
    interrupted.saves = [(str(tmp_path / f"trial-0001/checkpoint_{epoch}"), epoch, None) for epoch in range(4)]
    Retention(spec, trials, lambda trial: None, delete).clear_up(str(tmp_path))
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/checkpoint_*"))
    assert left == [
        "trial-0000/checkpoint_0",
        *("trial-0001/checkpoint_0", "trial-0001/checkpoint_2", "trial-0001/checkpoint_3"),
        "trial-0002/checkpoint_2",
    ]
