"""A disk that fills up in the middle of a job: a real one, in memory, where the system lets us make one."""

import contextlib
import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import tuner
from conftest import experiment, start_job
from disks import small_disk
from in_process import in_process
from mlflow import MlflowClient
from moments import held_when
from thread_writers import thread_writers

from tuner.storage.disk_full import is_full
from tuner.train import checkpoint
from tuner.train.trial_config import TrialConfig
from tuner.trials.generator import TrialGenerator
from tuner.trials.journal import Journal
from tuner.trials.resume.reading import read_past

JOB = """
name: filling
objective: val_accuracy
trial:
  data: {{kind: digits, limit: 300}}
  model: {{kind: cnn, width1: 8, width2: 8, hidden: 32}}
  epochs: 4
space:
  optimizer.lr: {{loguniform: [1.0e-3, 0.1]}}
search: {{kind: random, trials: 5}}
storage: {storage}/runs
tracking: {{uri: "sqlite:///{store}/mlflow.db", register: false}}
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB."""
    with small_disk(tmp_path / "disk", "24m") as place:
        yield place


def fill(disk: Path) -> Path:
    """Fill it to the last byte. Returns the file to delete for room."""
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            if file.write(bytes(1 << 16)) == 0:
                break
    return disk / "filler"


class Job:
    """A job in a folder of its own; checkpoints and store are where they are put."""

    def __init__(self, folder: Path, storage: Path, store: Path) -> None:
        self.folder = folder
        self.storage = storage
        self.file = folder / "job.yaml"
        self.file.write_text(JOB.format(storage=storage, store=store))
        self.client = MlflowClient(f"sqlite:///{store}/mlflow.db")

    def start(self) -> "subprocess.Popen[str]":
        return start_job(self.folder, "job.yaml")

    def command(self, name: str, *arguments: str) -> None:
        """A command that comes to a good end, in this process, where its trials are, too."""
        with in_process(), thread_writers():
            status, said = tuner(self.folder, name, "job.yaml", *arguments)
        assert status == 0 and "Traceback" not in said, said

    def end(self, process: "subprocess.Popen[str]", status: int = 0) -> str:
        """Wait for its end, and see to its status. Returns what it said."""
        try:
            said, _ = process.communicate(timeout=600)
        finally:
            process.kill()
        assert process.returncode == status and "Traceback" not in said, said
        return said

    def fill_when(self, process: "subprocess.Popen[str]", event: str, disk: Path) -> Path:
        """Fill a disk as soon as something stands in its journal. Returns the file that fills it."""

        def is_there() -> bool:
            journals = self.storage.glob("runs/filling/*/journal.jsonl")
            return any(f'"{event}"' in path.read_text() for path in journals)

        with held_when(process, is_there):
            return fill(disk)

    def record(self) -> tuple[str, dict[int, tuple[str, list[int]]]]:
        """Status of the job's own run; of each trial its status and the epochs of its curve."""
        experiment = self.client.get_experiment_by_name("filling")
        assert experiment is not None
        trials, parent = {}, ""
        for run in self.client.search_runs([experiment.experiment_id]):
            if run.data.tags["tuner.role"] == "parent":
                parent = run.info.status
                continue
            curve = self.client.get_metric_history(run.info.run_id, "val_accuracy")
            trials[int(run.data.tags["tuner.trial"])] = run.info.status, [point.step for point in curve]
        return parent, trials


WHOLE: tuple[str, dict[int, Any]] = ("FINISHED", dict.fromkeys(range(5), ("FINISHED", [1, 2, 3, 4])))


@pytest.mark.slow
@pytest.mark.usefixtures("store_made")
def test_storage_that_is_full_ends_the_job_and_resume_goes_on(tmp_path: Path, disk: Path) -> None:
    job = Job(tmp_path, disk, tmp_path)
    process = job.start()
    filler = job.fill_when(process, "ended", disk)
    said = job.end(process, status=1)
    assert "ended early: the disk is full" in said and "--resume continues the job" in said
    parent, trials = job.record()
    assert parent == "FAILED" and "RUNNING" not in {status for status, _ in trials.values()}
    assert ("FINISHED", [1, 2, 3, 4]) in trials.values()  # what had been reported is there
    filler.unlink()
    job.command("run", "--resume")
    assert job.record() == WHOLE


@pytest.mark.slow
def test_a_store_that_is_full_is_told_what_it_lacks_by_sync(tmp_path: Path, disk: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, disk / "mlflow.db")
    job = Job(tmp_path, tmp_path, disk)
    process = job.start()
    filler = job.fill_when(process, "started", disk)
    said = job.end(process)  # the trials need no store
    assert "the record is incomplete" in said and "tuner sync" in said
    filler.unlink()
    job.command("sync")
    assert job.record() == WHOLE


def test_a_checkpoint_says_that_the_disk_is_full(disk: Path) -> None:
    trial = TrialConfig.model_validate({"data": {"kind": "digits"}, "model": {"kind": "cnn"}})
    fill(disk)
    with pytest.raises((OSError, RuntimeError)) as raised:
        checkpoint.Save(trial, torch.nn.Linear(1000, 100).state_dict(), {}, {})(disk)
    assert is_full(raised.value)


def test_a_journal_makes_up_for_what_had_no_room(tmp_path: Path, disk: Path) -> None:
    spec, trouble = experiment(), list[OSError]()
    generator, journal = TrialGenerator(spec), Journal(str(disk), trouble.append)
    journal.opened(spec, parent_run="", trials=4)
    filler = fill(disk)
    trials = [trial for trial in (generator.next() for _ in range(4)) if trial is not None]
    for trial in trials:
        trial.started = time.time()
        journal.trial_started(trial)
        for epoch in range(1, 200):  # more than the block that the file has already
            trial.take({"val_accuracy": 0.5, "epoch": epoch}, spec.objective)
            journal.trial_reported(trial, {"val_accuracy": 0.5, "epoch": epoch})
    assert trouble and all(is_full(error) for error in trouble)
    filler.unlink()
    journal.closed(is_finished=False)
    past = read_past(spec, str(disk), "job", goes_on=False)
    assert [len(trial.reports) for trial in past.trials] == [199] * 4


@pytest.mark.parametrize("folder", ["{}", "file://{}"])
def test_without_anybody_to_tell_a_journal_raises(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(folder.format(tmp_path))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(self: Journal) -> None:
        raise full

    monkeypatch.setattr(Journal, "_append", refuse)
    monkeypatch.setattr(Journal, "_replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        journal.closed(is_finished=True)


class TestIsFull:
    def test_by_its_number_its_words_and_what_it_comes_from(self) -> None:
        full = OSError(errno.ENOSPC, "voll")
        assert is_full(full) and is_full(OSError(errno.EDQUOT, "zu viel"))
        assert is_full("RuntimeError: [Errno 28] No space left on device")
        try:
            try:
                raise full
            except OSError:
                raise RuntimeError("unexpected pos 64") from None
        except RuntimeError as error:
            assert is_full(error)

    def test_others_are_not(self) -> None:
        assert not is_full(OSError(errno.EACCES, "Permission denied"))
        assert not is_full(ValueError("the space is not full"))
