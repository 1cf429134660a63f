"""``tuner sync`` says that a record is whole where it has read it back, and mends what is lacking."""

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from conftest import Played, experiment
from mlflow import MlflowClient

from tuner.errors import UserError
from tuner.jobs.sync import sync
from tuner.spec.experiment import ExperimentSpec
from tuner.tracking.names import TAG, originals, recorded
from tuner.tracking.record.messages import end_of
from tuner.tracking.record.recorder import Recorder
from tuner.trials.generator import TrialGenerator
from tuner.trials.journal import FILE, Journal

pytestmark = pytest.mark.usefixtures("thread_writer")

ODD, KEY = "mAP@50", "config.lr(head)"


class Job:
    """A job of two trials of three reports, that ended, and its record."""

    def __init__(self, folder: Path) -> None:
        self.uri = f"sqlite:///{folder}/store.db"
        self.database = folder / "store.db"
        self.said: list[str] = []
        self.spec: ExperimentSpec = experiment(
            trial={"target": "json:dumps", "config": {"lr(head)": 0.1, "wd%": 1}},
            objective={"metric": ODD, "mode": "max"},
            space={KEY: {"choice": [0.1, 0.2]}},
            search={"kind": "grid"},
            storage=str(folder / "runs"),
            tracking={"uri": self.uri},
        )
        job = folder / "runs" / self.spec.name / "job"
        generator, recorder = TrialGenerator(self.spec), Recorder(self.spec, self.uri)
        self.links = recorder.open("job", str(job), folder, generator.total, warn=self.said.append)
        journal = Journal(str(job), follow=recorder.put)
        journal.opened(self.spec, parent_run=self.links.parent_run_id, trials=generator.total)
        played = Played(self.spec, generator, journal)
        for _ in range(2):
            trial = generator.next()
            assert trial is not None
            played.start(trial)
            for epoch in (1, 2, 3):
                played.report(trial, epoch / 10, loss=1.0)
            played.end(trial)
        end = end_of("FINISHED", {f"best_{ODD}": 0.3, "status": "completed"}, winner=trial, journal=str(job / FILE))
        journal.closed(True)
        journal.recorded(end)
        recorder.close()
        assert recorder.failure is None

    def change(self, statement: str) -> None:
        with sqlite3.connect(self.database) as connection:
            connection.execute(statement)

    def content(self) -> list[Any]:
        with sqlite3.connect(self.database) as connection:
            point = "run_uuid, key, step, value"  # the journal's times are a moment later
            tables = {"metrics": point, "latest_metrics": point, "params": "*", "tags": "*", "runs": "run_uuid, status"}
            queries = [f"SELECT {columns} FROM {table}" for table, columns in tables.items()]
            return [sorted(map(str, connection.execute(query))) for query in queries]


@pytest.fixture
def job(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path / "store.db")
    return Job(tmp_path)


def test_odd_names_are_recorded_and_told_once(job: Job) -> None:
    client = MlflowClient(job.uri)
    parent = client.get_run(job.links.parent_run_id)
    winner = client.get_run(parent.data.tags["tuner.winner_run"])
    assert {parent.info.status, winner.info.status} == {"FINISHED"}
    assert len(client.get_metric_history(winner.info.run_id, recorded(ODD))) == 3
    assert winner.data.metrics["loss"] == 1.0 and winner.data.metrics[recorded(f"best_{ODD}")] == 0.3
    assert winner.data.params == {recorded(KEY): "0.2"}
    assert set(originals(winner.data.tags).values()) == {ODD, f"best_{ODD}", KEY, "fixed.config.wd%"}
    assert TAG in parent.data.tags
    told = " ".join(job.said)
    assert all(told.count(repr(name)) == 1 for name in (ODD, KEY, "config.wd%"))


def test_a_record_that_is_whole_stays_as_it_is(job: Job) -> None:
    before = job.content()
    sync(job.spec, Path())
    assert job.content() == before


@pytest.mark.parametrize(
    "loss",
    [
        "DELETE FROM metrics WHERE key = 'loss' AND step = 2",
        "DELETE FROM metrics",
        "DELETE FROM latest_metrics WHERE key LIKE 'best_mAP%'",
        "DELETE FROM params WHERE key LIKE 'config.%'",
        "UPDATE runs SET status = 'RUNNING', end_time = NULL",
    ],
)
def test_what_an_older_version_did_not_write_is_written(job: Job, loss: str) -> None:
    before = job.content()
    job.change(loss)
    assert job.content() != before
    sync(job.spec, Path())
    assert [set(there) for there in job.content()] == [set(there) for there in before]


def test_what_cannot_be_mended_is_named(job: Job) -> None:
    job.change(f"UPDATE params SET value = '7' WHERE key = '{recorded(KEY)}'")
    with pytest.raises(UserError, match="is incomplete") as raised:
        sync(job.spec, Path())
    assert f"trial 0 has not the parameter {KEY!r}" in str(raised.value)


@pytest.mark.slow
def test_a_store_that_is_gone_is_made_anew_once(job: Job) -> None:
    before = job.content()
    job.database = job.database.with_name("other.db")  # MLflow itself would go on with the file that was deleted
    job.uri = f"sqlite:///{job.database}"
    spec = job.spec.model_copy(update={"tracking": job.spec.tracking.model_copy(update={"uri": job.uri})})
    sync(spec, Path())
    assert [len(there) for there in job.content()] == [len(there) for there in before]
    after = job.content()
    sync(spec, Path())
    assert job.content() == after


@pytest.mark.parametrize("line", ["started", "ended", "recorded"])
def test_a_journal_that_is_older_than_the_record_takes_nothing_from_it(job: Job, line: str) -> None:
    """As one that was restored from a backup."""
    [journal] = Path(job.spec.storage).rglob(FILE)
    lines = journal.read_text().splitlines(keepends=True)
    last = max(number for number, text in enumerate(lines) if f'"{line}"' in text)
    journal.write_text("".join(lines[:last]))
    before = job.content()
    with pytest.raises(UserError, match="has more than the job's journal"):
        sync(job.spec, Path())
    assert job.content() == before


@pytest.mark.slow
def test_what_its_user_has_put_below_the_run_of_a_job_is_no_trial(job: Job) -> None:
    client = MlflowClient(job.uri)
    client.create_run(job.links.experiment_id, tags={"mlflow.parentRunId": job.links.parent_run_id})
    before = job.content()
    sync(job.spec, Path())
    assert job.content() == before


def test_a_clock_that_was_set_back_keeps_no_number_of_the_job_from_being_true(job: Job) -> None:
    ours = f"run_uuid = '{job.links.parent_run_id}'"
    before = job.content()[1]
    for table in ("metrics", "latest_metrics"):
        job.change(f"UPDATE {table} SET value = 0.1, timestamp = timestamp + 100000000 WHERE {ours}")
    assert job.content()[1] != before
    sync(job.spec, Path())
    assert job.content()[1] == before
