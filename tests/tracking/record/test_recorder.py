import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Played, Write, eventually, experiment
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from benchmarks.servers import free_port, mlflow_server
from tuner.errors import UserError
from tuner.jobs.preflight import check_store, tracking_uri
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.loader import load
from tuner.storage.uris import MLFLOW_DEFAULT, default_uri, masked
from tuner.tracking.health import unanswered
from tuner.tracking.names import recorded
from tuner.tracking.record import writer
from tuner.tracking.record.messages import JournalState, end_of
from tuner.tracking.record.opening import opening, rules_of
from tuner.tracking.record.projection import EndRun, projected
from tuner.tracking.record.record import Record
from tuner.tracking.record.recorder import Recorder
from tuner.tracking.record.reopening import Refused
from tuner.tracking.record.writer_client import WriterClient
from tuner.tracking.store import FIXED, SPACE, runs_below
from tuner.tracking.user_mlflow import KEY, key_of
from tuner.trials.generator import TrialGenerator, planned
from tuner.trials.journal import Journal, history
from tuner.trials.resume.reading import read_past
from tuner.trials.resume.resumed_job import ResumedJob
from tuner.trials.trial import Trial

pytestmark = pytest.mark.usefixtures("thread_writer")


@pytest.fixture
def spec(write: Write, minimal: str) -> ExperimentSpec:
    return load(write(minimal))


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path / "store.db")
    return f"sqlite:///{tmp_path}/store.db"


def plan(spec: ExperimentSpec) -> list[Trial]:
    trials = planned(spec)
    assert trials is not None
    return trials


def take(trial: Trial, spec: ExperimentSpec, epoch: int, value: float) -> dict[str, Any]:
    report: dict[str, Any] = dict.fromkeys(spec.trial.metrics or (), 0.5) | {"epoch": epoch, "val_accuracy": value}
    report |= {"device": "cpu", "precision": "float32"}
    trial.take(report, spec.objective)
    return report


def test_the_store_is_the_file_s_then_the_environment_s_then_mlflow_s(
    spec: ExperimentSpec, write: Write, minimal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(spec) == MLFLOW_DEFAULT
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert tracking_uri(spec) == default_uri() == "http://127.0.0.1:1"
    assert tracking_uri(load(write(minimal + "tracking: {uri: sqlite:///mine.db}\n"))) == "sqlite:///mine.db"


def test_a_store_that_mlflow_does_not_know_is_refused() -> None:
    with pytest.raises(UserError, match="no store that MLflow knows"):
        check_store("sqlit:///mlflow.db")


@pytest.mark.slow
def test_thousands_of_metrics_travel_in_batches_and_arrive_once(spec: ExperimentSpec, uri: str, tmp_path: Path) -> None:
    recorder, [trial, _] = Recorder(spec, uri), plan(spec)
    journal = Journal(str(tmp_path / "job"), follow=recorder.put)
    links = recorder.open("job", "runs/job", Path(), 2)
    journal.trial_started(trial)
    journal.trial_started(trial)  # begun again, after a crash
    for epoch in range(1, 301):
        journal.trial_reported(trial, take(trial, spec, epoch, epoch / 1000))
    trial.end("completed", "")
    journal.trial_ended(trial)
    recorder.job_ended(end_of("FINISHED", {"best_val_accuracy": 0.3}, winner=trial))
    recorder.close()
    assert recorder.failure is None
    client = MlflowClient(uri)
    runs = client.search_runs([links.experiment_id])
    assert len(runs) == 2  # the parent and one trial: the other has not begun
    parent = client.get_run(links.parent_run_id)
    run_id = parent.data.tags["tuner.winner_run"]
    for name in spec.trial.metrics or ():
        assert [metric.step for metric in client.get_metric_history(run_id, name)] == list(range(1, 301))
    assert client.get_run(run_id).data.metrics["best_epoch"] == 300
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_store_that_goes_away_ends_no_job_and_is_told(spec: ExperimentSpec, uri: str, tmp_path: Path) -> None:
    recorder, [trial, _] = Recorder(spec, uri), plan(spec)
    journal = Journal(str(tmp_path / "job"), follow=recorder.put)
    recorder.open("job", "runs/job", Path(), 2)
    (tmp_path / "store.db").write_bytes(b"no database any more")
    journal.trial_started(trial)
    journal.trial_reported(trial, take(trial, spec, 1, 0.5))
    recorder.close()
    assert recorder.failure is not None


@pytest.mark.slow
def test_a_store_that_has_gone_away_for_good_before_the_end_holds_up_no_end(
    spec: ExperimentSpec, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.tracking.record.opening.PATIENCE", 1.0)
    recorder, [trial, _] = Recorder(spec, uri), plan(spec)
    journal = Journal(str(tmp_path / "job"), follow=recorder.put)
    recorder.open("job", "runs/job", Path(), 2)
    (tmp_path / "store.db").write_bytes(b"no database any more")
    journal.trial_started(trial)
    time.sleep(2.0)  # by now it is tried, and tried again
    recorder.job_ended(end_of("FINISHED", {}))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(recorder.close).result(timeout=300)
    assert "does not answer" in str(recorder.failure)


def test_the_best_of_a_trial_that_went_back_is_what_mlflow_shows(spec: ExperimentSpec) -> None:
    """It was interrupted after its third epoch, began again without a checkpoint, and was ended after its first."""
    [trial, _] = plan(spec)
    for epoch in (1, 2, 3):
        take(trial, spec, epoch, 0.9)
    trial.best, trial.best_report = None, {}
    take(trial, spec, 1, 0.3)
    trial.end("pruned", "")
    trial.reports = [(take(trial, spec, 1, 0.3), 1.0)]
    end = projected(rules_of(spec), "", 0, history(spec, trial))[-1]
    assert isinstance(end, EndRun)
    assert (end.metrics["best_val_accuracy"], end.step) == (0.3, 3)


def test_a_driver_that_is_killed_in_the_middle_of_a_line_leaves_no_writer_behind(
    spec: ExperimentSpec, uri: str
) -> None:
    recorder = Recorder(spec, uri)
    links = recorder.open("job", "runs/job", Path(), 2)
    scribe: Any = recorder._writer
    scribe.lines.put('{"do": "metr')
    scribe.lines.put(None)
    assert json.loads(scribe.answers.get(timeout=30))["failures"] == []  # it would hold the job's lock until then
    assert MlflowClient(uri).get_run(links.parent_run_id).info.status == "KILLED"


@pytest.mark.slow
def test_a_store_that_comes_back_is_told_all_that_it_missed(
    spec: ExperimentSpec, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, [trial, other] = Recorder(spec, uri), plan(spec)
    journal = Journal(str(tmp_path / "job"), follow=recorder.put)
    links = recorder.open("job", "runs/job", Path(), 2)
    journal.trial_started(trial)
    journal.trial_reported(trial, take(trial, spec, 1, 0.1))
    client = MlflowClient(uri)
    assert eventually(lambda: len(client.search_runs([links.experiment_id], "metrics.val_accuracy > 0")) == 1)
    store = tmp_path / "store.db"
    whole = store.read_bytes()
    store.write_bytes(b"no database any more")
    journal.trial_reported(trial, take(trial, spec, 2, 0.2))
    journal.trial_started(other)
    trial.end("completed", "")
    journal.trial_ended(trial)
    time.sleep(1.5)  # it has tried
    store.write_bytes(whole)
    journal.trial_reported(other, take(other, spec, 1, 0.3))
    other.end("completed", "")
    journal.trial_ended(other)
    recorder.job_ended(end_of("FINISHED", {}))
    recorder.close()
    assert recorder.failure is None
    runs = {run.data.tags.get("tuner.trial"): run for run in MlflowClient(uri).search_runs([links.experiment_id])}
    assert {run.info.status for run in runs.values()} == {"FINISHED"} and len(runs) == 3
    history = MlflowClient(uri).get_metric_history(runs["0"].info.run_id, "val_accuracy")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.1), (2, 0.2)]


@pytest.mark.slow
@pytest.mark.server
def test_a_server_that_goes_away_while_the_record_is_opened_is_waited_for(
    spec: ExperimentSpec, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # as the writer's process has it, or nearly
    port = free_port()
    warnings: list[str] = []
    asked: list[str] = []
    with contextlib.ExitStack() as server:

        def comes_back(where: str) -> str:
            """Between the second attempt, which failed, and the question whether it is there."""
            asked.append(where)
            if len(asked) == 2:
                server.enter_context(mlflow_server(uri, Path("artifacts").resolve(), port=port))
            return unanswered(where)

        monkeypatch.setattr(writer, "unanswered", comes_back)
        recorder = Recorder(spec, f"http://127.0.0.1:{port}")
        links = recorder.open("job", "runs/job", Path(), 2, warn=warnings.append)
        recorder.close()
    assert len(asked) == 2
    assert recorder.failure is None
    [warning] = warnings
    assert f"http://127.0.0.1:{port} does not answer, and is waited for: no tracking server answers" in warning
    [run] = MlflowClient(uri).search_runs([links.experiment_id])
    assert run.info.run_id == links.parent_run_id


@pytest.mark.slow
def test_ctrl_c_waits_for_no_server_that_is_away(spec: ExperimentSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.tracking.record.recorder.WriterClient", WriterClient)  # a writer that is a process
    warnings: list[str] = []
    recorder = Recorder(spec, f"http://127.0.0.1:{free_port()}")
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(recorder.open, "job", "runs/job", Path(), 2, warn=warnings.append)
        assert eventually(lambda: bool(warnings))
        recorder.hang_up()
        with pytest.raises(UserError, match="MLflow refuses the record"):
            opening.result(20)
    recorder.close()


@pytest.mark.slow
def test_a_store_that_stays_away_is_refused(
    spec: ExperimentSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(writer, "_AWAY", 1.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"tracking\.uri: MLflow refuses the record"):
        Recorder(spec, f"http://127.0.0.1:{free_port()}").open("job", "runs/job", Path(), 2)


def test_a_record_whose_opening_was_cut_off_is_opened_once(
    spec: ExperimentSpec, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = opening(spec, uri, JournalState(job="job", folder="runs/job"), Path(), 2, {})
    cut_off = Record(uri)

    def fail(*arguments: Any, **more: Any) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_text", fail)
        with pytest.raises(Refused):
            cut_off.open(message)
    for record in (cut_off, Record(uri)):
        opened = record.open(message, again=True)
        [run] = MlflowClient(uri).search_runs([opened.experiment])
        assert run.info.run_id == opened.parent and run.data.params["trials"] == "2"


def test_a_dataset_that_another_run_adds_at_the_same_time_is_logged(
    spec: ExperimentSpec, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, [trial, _] = Recorder(spec, uri), plan(spec)
    journal = Journal(str(tmp_path / "job"), follow=recorder.put)
    real, refusals = MlflowClient.log_inputs, list[str]()

    def refuse_once(self: MlflowClient, *arguments: Any, **more: Any) -> None:
        if not refusals:  # as a server says it where two of its workers add one dataset
            refusals.append("(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.experiment_id")
            raise MlflowException(refusals[0])
        real(self, *arguments, **more)

    monkeypatch.setattr(MlflowClient, "log_inputs", refuse_once)
    links = recorder.open("job", "runs/job", Path(), 2)
    journal.trial_started(trial)
    recorder.close()
    assert refusals and recorder.failure is None
    runs = MlflowClient(uri).search_runs([links.experiment_id], "tags.`tuner.role` = 'trial'")
    assert [len(run.inputs.dataset_inputs) for run in runs] == [2]


def test_a_store_that_is_away_is_not_one_without_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MlflowException):
        runs_below(MlflowClient(f"http://127.0.0.1:{free_port()}"), "0", "run")


def test_a_store_of_another_version_is_refused(spec: ExperimentSpec, uri: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "store.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    with pytest.raises(UserError, match="another version of MLflow created the store") as raised:
        Recorder(spec, uri).open("job", "runs/job", Path(), 2)
    assert f"mlflow db upgrade {uri}" in str(raised.value)


def test_an_experiment_that_was_deleted_is_refused(spec: ExperimentSpec, uri: str) -> None:
    client = MlflowClient(uri)
    client.delete_experiment(client.create_experiment(spec.name))
    with pytest.raises(UserError, match="was deleted in MLflow") as raised:
        Recorder(spec, uri).open("job", "runs/job", Path(), 2)
    assert "mlflow experiments restore" in str(raised.value)


def test_the_command_for_another_store_names_it(spec: ExperimentSpec, uri: str) -> None:
    recorder = Recorder(spec, uri)
    links = recorder.open("job", "runs/job", Path(), 2)
    recorder.close()
    assert links.command == f"mlflow ui --backend-store-uri {uri}"
    assert f"/experiments/{links.experiment_id}/runs?workflowType=machine_learning" in links.url


def test_a_password_is_neither_shown_nor_recorded(write: Write, minimal: str) -> None:
    uri = "postgresql://someone:se:cret@127.0.0.1:1/mlflow"
    assert masked(uri) == "postgresql://someone:***@127.0.0.1:1/mlflow"
    assert masked("http://127.0.0.1:5000/a@b") == "http://127.0.0.1:5000/a@b"
    text = masked(load(write(f"{minimal}tracking: {{uri: {uri}}}\n")).to_yaml())
    assert "cret" not in text and "someone:***@127.0.0.1" in text
    with pytest.raises(UserError, match="cannot be reached") as raised:
        check_store(uri)
    assert "cret" not in str(raised.value)


def test_what_cannot_be_written_of_one_trial_costs_no_other(spec: ExperimentSpec, uri: str, tmp_path: Path) -> None:
    recorder, [broken, sound] = Recorder(spec, uri), plan(spec)
    journal = Journal(str(tmp_path / "job"), follow=recorder.put)
    links = recorder.open("job", "runs/job", Path(), 2)
    for trial in (broken, sound):
        journal.trial_started(trial)
        journal.trial_reported(trial, take(trial, spec, 1, 0.5))
    broken.checkpoint = "nowhere://gone"
    for trial in (broken, sound):
        trial.status = "completed"
        journal.trial_ended(trial)
    recorder.job_ended(end_of("FINISHED", {}))
    recorder.close()
    assert recorder.failure is not None
    status = {
        run.data.tags.get("tuner.trial"): run.info.status
        for run in MlflowClient(uri).search_runs([links.experiment_id])
    }
    assert status == {"0": "FINISHED", "1": "FINISHED", None: "FINISHED"}


def test_a_registry_that_refuses_costs_nothing_but_the_model(
    spec: ExperimentSpec, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*said: Any) -> str:
        raise PermissionError("the registry takes no models from us")

    monkeypatch.setattr("tuner.tracking.registered.registering.register", refuse)
    job = Recorded(spec, uri, tmp_path)
    trial = job.next()
    job.report(trial, 0.5, tmp_path)
    job.end(trial)
    model = {"checkpoint": trial.checkpoint}
    job.recorder.job_ended(
        end_of("FINISHED", {"best_epoch": 1}, winner=trial, test={"test_accuracy": 0.4}, model=model)
    )
    job.recorder.close()
    assert "takes no models from us" in str(job.recorder.failure) and not job.recorder.model
    assert job.parent.info.status == "FINISHED" and job.parent.data.metrics["best_epoch"] == 1
    assert job.parent.data.tags["tuner.winner_run"] == job.run_of(0).info.run_id
    assert job.run_of(0).data.metrics["test_accuracy"] == 0.4


class Recorded(Played):
    """A job that is recorded, and writes its journal."""

    def __init__(self, spec: ExperimentSpec, uri: str, folder: Path, past: ResumedJob | None = None) -> None:
        self.uri = uri
        self.folder = folder
        self.generator = TrialGenerator(spec, past.trials if past else ())
        self.recorder = Recorder(spec, uri)
        self.links = self.recorder.open("job", str(folder), Path(), self.generator.total, past)
        self.journal = Journal(str(folder), follow=self.recorder.put)
        self.journal.opened(spec, parent_run=self.links.parent_run_id, trials=self.generator.total)
        super().__init__(spec, self.generator, self.journal)

    def next(self) -> Trial:
        trial = self.generator.next()
        assert trial is not None
        return self.start(trial)

    def finish(self, **more: Any) -> None:
        """End the job and its record."""
        self.recorder.job_ended(end_of("FINISHED", {}, **more))
        self.close()

    def close(self) -> None:
        """Write what there is to write, and no end: as a driver that is killed."""
        self.recorder.close()
        assert self.recorder.failure is None

    def unfollowed(self) -> None:
        """Have the journal written alone from now on."""
        self.listeners = (self.generator, Journal(str(self.folder)))

    def again(self) -> "Recorded":
        """Another run of the same job."""
        return Recorded(self.spec, self.uri, self.folder, read_past(self.spec, str(self.folder), "job"))

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    @property
    def parent(self) -> Any:
        return self.client.get_run(self.links.parent_run_id)

    def run_of(self, number: int) -> Any:
        [found] = [run for run in self.runs() if run.data.tags.get("tuner.trial") == str(number)]
        return found

    def runs(self) -> list[Any]:
        return list(self.client.search_runs([self.links.experiment_id]))

    def history(self, number: int, metric: str) -> list[tuple[int, float]]:
        """Steps and values of a metric of a trial."""
        history = self.client.get_metric_history(self.run_of(number).info.run_id, metric)
        return [(each.step, each.value) for each in history]


class TestWhatIsWritten:
    def test_of_several_objectives_constraints_and_a_scheduler(self, uri: str, tmp_path: Path) -> None:
        spec = experiment(
            objective=["val_accuracy", "val_loss"],
            constraints=["latency_ms <= 0.2", "parameters <= 99999"],
            search={"kind": "bayesian", "trials": 3},
        )
        job = Recorded(spec, uri, tmp_path / "job")
        good, worse, missing = (job.next() for _ in range(3))
        for trial, accuracy, loss, latency in (
            (good, 0.9, 1.0, 0.1),
            (worse, 0.8, 2.0, 0.1),
            (missing, 0.99, 0.1, 9.0),
        ):
            job.report(trial, accuracy, val_loss=loss, latency_ms=latency)
            job.report(trial, 0.1, val_loss=0.001)
            job.end(trial)
        job.finish(front=[good], winner=good)
        params = job.parent.data.params
        assert params["objective"] == "max val_accuracy, min val_loss"
        assert params["constraints"] == "latency_ms <= 0.2; parameters <= 99999"
        assert (params["search.kind"], params["scheduler.kind"], params["trials"]) == ("bayesian", "fifo", "3")
        assert job.run_of(0).data.tags["pareto"] == "true"
        assert not any("pareto" in job.run_of(number).data.tags for number in (1, 2))
        assert job.run_of(2).data.tags["tuner.missed"] == "latency_ms <= 0.2"
        assert "tuner.missed" not in job.run_of(0).data.tags
        metrics = job.run_of(0).data.metrics
        assert (metrics["best_val_accuracy"], metrics["best_val_loss"], metrics["best_epoch"]) == (0.9, 1.0, 1)
        assert job.parent.data.tags["tuner.winner_run"] == job.run_of(0).info.run_id

    @pytest.mark.parametrize(
        ("status", "mlflow_s"),
        [
            ("completed", "FINISHED"),
            ("pruned", "FINISHED"),
            ("failed", "FAILED"),
            ("diverged", "FAILED"),
            ("interrupted", "KILLED"),
        ],
    )
    def test_how_a_trial_ended(self, status: Any, mlflow_s: str, uri: str, tmp_path: Path) -> None:
        job = Recorded(experiment(scheduler={"kind": "asha"}), uri, tmp_path / "job")
        trial = job.next()
        job.report(trial, 0.5)
        job.end(trial, status, "asha after epoch 1", "Traceback" if status == "failed" else "")
        job.finish()
        run = job.run_of(0)
        assert run.info.status == mlflow_s
        assert (run.data.tags["tuner.status"], run.data.tags["tuner.reason"]) == (status, "asha after epoch 1")
        artifacts = [artifact.path for artifact in job.client.list_artifacts(run.info.run_id)]
        assert artifacts == (["traceback.txt"] if status == "failed" else [])

    def test_a_function_of_ones_own(self, uri: str, tmp_path: Path) -> None:
        """Its config is the parameters, what it reports the metrics; there is no dataset that anybody knows of."""
        spec = experiment(
            trial={"target": "json:dumps", "config": {"depth": {"of": 3}, "name": "x", "lr": 0}},
            space={"config.lr": {"choice": [0.1]}},
            search={"kind": "grid"},
            objective={"metric": "score", "mode": "max"},
        )
        job = Recorded(spec, uri, tmp_path / "job")
        trial = job.next()
        job.report(trial, 0.5, other=3, word="no number")
        job.end(trial)
        job.finish(winner=trial)
        run = job.run_of(0)
        assert run.data.params == {"config.lr": "0.1"}
        assert run.data.tags["fixed.config.depth.of"] == "3" and run.data.tags["fixed.target"] == "json:dumps"
        assert run.data.metrics == {"score": 0.5, "other": 3.0, "best_score": 0.5, "best_epoch": 1.0}
        assert run.inputs.dataset_inputs == []

    def test_how_a_population_changed(self, uri: str, tmp_path: Path) -> None:
        spec = experiment(scheduler={"kind": "pbt"}, search={"kind": "random", "trials": 2})
        job = Recorded(spec, uri, tmp_path / "job")
        parent, trial = job.next(), job.next()
        rates = []
        for value in (0.5, 0.6):
            rates.append(trial.assignment["optimizer.lr"])
            job.report(trial, value, tmp_path)
            job.report(parent, 0.9, tmp_path)
        job.mutate(trial, parent, {"optimizer.lr": 0.25, "optimizer.momentum": 0.5})
        for value in (0.7, 0.65):
            rates.append(0.25)
            job.report(trial, value, tmp_path)
        for ours in (parent, trial):
            job.end(ours)
        job.finish(winner=parent)
        assert job.history(1, "optimizer.lr") == list(enumerate(rates, start=1))
        assert [step for step, _ in job.history(1, "val_accuracy")] == [1, 2, 3, 4]
        assert {value for _, value in job.history(0, "optimizer.lr")} == {parent.assignment["optimizer.lr"]}
        run = job.run_of(1)
        assert float(run.data.params["optimizer.lr"]) == rates[0]  # what it began with
        assert run.data.tags["tuner.mutations"] == "1" and "tuner.mutations" not in job.run_of(0).data.tags
        [mutation] = json.loads(Path(job.client.download_artifacts(run.info.run_id, "mutations.json")).read_text())
        assert mutation == {
            "epoch": 2,
            "parent": 0,
            "before": trial.mutations[0].before,
            "after": {"optimizer.lr": 0.25, "optimizer.momentum": 0.5},
        }

    def test_what_a_sampler_was_chosen_for(self, uri: str, tmp_path: Path) -> None:
        job = Recorded(experiment(search={"kind": "bayesian", "trials": 3}), uri, tmp_path / "job")
        job.finish()
        assert "a Gaussian process (gp)" in job.parent.data.tags["tuner.sampler"]

    @pytest.mark.slow
    def test_the_test_set_is_the_winner_s(self, uri: str, tmp_path: Path) -> None:
        job = Recorded(experiment(), uri, tmp_path)
        for _ in range(2):
            trial = job.next()
            job.report(trial, 0.5)
            job.end(trial)
        job.finish(winner=trial, test={"test_accuracy": 0.4})
        seen = [
            {(each.tags[0].value, json.loads(each.dataset.profile)["num_rows"]) for each in run.inputs.dataset_inputs}
            for run in (job.run_of(0), job.run_of(1))
        ]
        assert seen == [
            {("training", 64), ("validation", 300)},
            {("training", 64), ("validation", 300), ("testing", 360)},
        ]

    def test_the_files_of_the_job_lie_at_its_own_run(self, uri: str, tmp_path: Path) -> None:
        job = Recorded(experiment(), uri, tmp_path / "job")
        (tmp_path / "files").mkdir()
        pd.DataFrame({"trial": [1]}).to_csv(tmp_path / "files" / "leaderboard.csv")
        job.finish(artifacts=tmp_path / "files")
        assert {artifact.path for artifact in job.client.list_artifacts(job.links.parent_run_id)} == {
            "experiment.yaml",
            "leaderboard.csv",
        }


class TestReopened:
    def killed(self, uri: str, tmp_path: Path, spec: ExperimentSpec | None = None) -> Recorded:
        """A job that was killed: one trial has ended, one has a checkpoint of its second of three epochs."""
        job = Recorded(spec or experiment(), uri, tmp_path / "job")
        done, running = job.next(), job.next()
        for _ in range(2):
            job.report(done, 0.5, job.folder / "store")
            job.report(running, 0.6, job.folder / "store")
        job.report(running, 0.7)
        job.end(done)
        return job

    @pytest.mark.slow
    def test_the_same_runs_go_on_and_no_step_is_there_twice(self, uri: str, tmp_path: Path) -> None:
        job = self.killed(uri, tmp_path)
        job.close()
        links = job.links
        again = job.again()
        assert again.links == links
        assert again.parent.info.status == "RUNNING"
        trial = again.next()
        assert (trial.number, trial.epoch) == (1, 2)
        again.report(trial, 0.7, again.folder / "store")  # the same epoch as before, a moment later
        again.report(trial, 0.8, again.folder / "store")
        again.end(trial)
        again.end(again.next())
        again.finish(winner=trial)
        assert again.history(1, "val_accuracy") == [(1, 0.6), (2, 0.6), (3, 0.7), (4, 0.8)]
        for metric in ("val_loss", "epoch_seconds"):
            assert [step for step, _ in again.history(1, metric)] == [1, 2, 3, 4]
        assert again.history(0, "val_accuracy") == [(1, 0.5), (2, 0.5)]
        assert sorted(run.data.tags.get("tuner.trial", "") for run in again.runs()) == ["", "0", "1", "2"]
        assert {run.info.status for run in again.runs()} == {"FINISHED"}
        assert again.run_of(1).data.metrics["best_val_accuracy"] == 0.8

    def test_runs_that_code_of_ones_own_began_are_put_below_their_trials(self, uri: str, tmp_path: Path) -> None:
        spec = experiment(
            trial={"target": "json:dumps"},
            objective={"metric": "val_accuracy", "mode": "max"},
            space={"config.lr": {"choice": [1, 2, 3]}},
            search={"kind": "grid"},
        )
        job = Recorded(spec, uri, tmp_path / "job")
        trials = [job.next() for _ in range(3)]
        begun = [
            job.client.create_run(job.links.experiment_id, tags={KEY: key_of(job.links.parent_run_id, trial.number)})
            for trial in trials
        ]
        job.end(trials[0], "completed")
        job.end(trials[1], "failed", "boom")
        job.close()  # without an end: the third is given up
        theirs = [job.client.get_run(run.info.run_id) for run in begun]
        assert [run.info.status for run in theirs] == ["FINISHED", "FAILED", "KILLED"]
        for trial, run in zip(trials, theirs, strict=True):
            assert run.data.tags["mlflow.parentRunId"] == job.run_of(trial.number).info.run_id

    def test_what_was_not_written_is_written_now(self, uri: str, tmp_path: Path) -> None:
        """A driver that was killed before its record was sent leaves all to the journal."""
        job = Recorded(experiment(), uri, tmp_path / "job")
        job.close()
        job.unfollowed()
        done, failed, running = (job.next() for _ in range(3))
        for trial in (done, failed, running):
            job.report(trial, 0.5 + trial.number / 10, job.folder / "store")
        job.end(done, "pruned", "asha after epoch 1")
        job.end(failed, "failed", "boom", "Traceback of it")
        again = job.again()
        again.close()
        for number in range(3):
            assert again.history(number, "val_accuracy") == [(1, 0.5 + number / 10)]
        run = again.run_of(0)
        assert (run.info.status, run.data.tags["tuner.status"]) == ("FINISHED", "pruned")
        assert run.info.end_time == pytest.approx(1000 * (done.ended or 0), abs=1000)
        assert run.info.start_time == pytest.approx(1000 * (done.started or 0), abs=1000)
        assert run.data.params["optimizer.lr"] == str(done.assignment["optimizer.lr"])
        assert again.run_of(1).info.status == "FAILED"
        assert [each.path for each in again.client.list_artifacts(again.run_of(1).info.run_id)] == [
            "checkpoint",
            "traceback.txt",
        ]

    def test_a_record_that_is_made_anew_has_what_only_the_journal_knows(
        self, uri: str, empty_store: Path, tmp_path: Path
    ) -> None:
        job = self.killed(uri, tmp_path)
        trial = job.generator.trials[1]
        trial.host, trial.lost, trial.micro_batches, trial.damaged = "far-away", 2, 4, {"checkpoint_1": "cut off"}
        job.end(trial)
        job.close()
        before = job.run_of(1)
        shutil.copy(empty_store, tmp_path / "other.db")
        job.uri = f"sqlite:///{tmp_path}/other.db"
        again = job.again()
        again.finish()
        tags = again.run_of(1).data.tags
        assert (tags["tuner.host"], tags["tuner.lost"], tags["tuner.batch_parts"]) == ("far-away", "2", "4")
        assert tags["tuner.damaged"] == "checkpoint_1: cut off"
        ours = {name: value for name, value in before.data.tags.items() if not name.startswith("mlflow.")}
        assert {name: tags.get(name) for name in ours} == ours
        assert again.run_of(1).data.metrics == before.data.metrics

    def test_a_run_that_was_not_ended_is_ended(self, uri: str, tmp_path: Path) -> None:
        job = self.killed(uri, tmp_path)
        job.close()
        job.client.update_run(job.run_of(0).info.run_id, status="RUNNING")
        job.client.delete_tag(job.run_of(0).info.run_id, "tuner.status")
        again = job.again()
        again.finish()
        assert again.run_of(0).info.status == "FINISHED"
        assert again.run_of(0).data.tags["tuner.status"] == "completed"
        assert again.history(0, "val_accuracy") == [(1, 0.5), (2, 0.5)]

    def test_a_run_that_ended_is_left_alone(self, uri: str, tmp_path: Path) -> None:
        job = self.killed(uri, tmp_path)
        job.close()
        before = job.run_of(0)
        job.client.set_tag(before.info.run_id, "tuner.reason", "mine")
        again = job.again()
        again.finish()
        assert again.run_of(0).info == before.info
        assert again.run_of(0).data.tags["tuner.reason"] == "mine"

    @pytest.mark.slow
    def test_a_trial_that_was_interrupted_runs_again(self, uri: str, tmp_path: Path) -> None:
        job = self.killed(uri, tmp_path)
        job.end(job.generator.trials[1], "interrupted", "timeout")
        job.finish()
        assert job.run_of(1).info.status == "KILLED"
        again = job.again()
        trial = again.next()
        assert trial.number == 1
        assert eventually(lambda: again.run_of(1).info.status == "RUNNING")
        again.close()

    def test_nothing_is_left_of_how_the_earlier_run_ended(self, uri: str, tmp_path: Path) -> None:
        job = self.killed(uri, tmp_path, experiment(objective=["val_accuracy", "val_loss"]))
        done, running = job.generator.trials
        job.end(running, "interrupted", "timeout")
        job.recorder.job_ended(end_of("FINISHED", {"ended_early": "timeout"}, front=[done, running]))
        job.close()
        assert job.run_of(1).data.tags["tuner.reason"] == job.parent.data.tags["tuner.ended_early"] == "timeout"
        again = job.again()
        trial = again.next()
        again.report(trial, 0.9)
        again.end(trial)
        again.finish(front=[trial])
        assert "tuner.ended_early" not in again.parent.data.tags
        assert "tuner.reason" not in again.run_of(1).data.tags
        assert [number for number in (0, 1) if "pareto" in again.run_of(number).data.tags] == [1]

    @pytest.mark.slow
    def test_a_run_that_its_user_deleted_is_made_again(self, uri: str, tmp_path: Path) -> None:
        job = self.killed(uri, tmp_path)
        job.close()
        job.client.delete_run(job.run_of(0).info.run_id)
        again = job.again()
        again.finish()
        assert again.history(0, "val_accuracy") == [(1, 0.5), (2, 0.5)]

    @pytest.mark.parametrize("how", ["deleted", "another store"])
    def test_a_job_whose_own_run_is_gone_gets_a_new_one_with_all_its_trials(
        self, how: str, uri: str, empty_store: Path, tmp_path: Path
    ) -> None:
        job = self.killed(uri, tmp_path)
        job.close()
        if how == "deleted":
            job.client.delete_run(job.links.parent_run_id)
        else:
            shutil.copy(empty_store, tmp_path / "other.db")
            job.uri = f"sqlite:///{tmp_path}/other.db"
        again = job.again()
        again.finish()
        assert again.links.parent_run_id != job.links.parent_run_id
        below = [run for run in again.runs() if run.data.tags.get("mlflow.parentRunId") == again.links.parent_run_id]
        assert sorted(run.data.tags["tuner.trial"] for run in below) == ["0", "1"]

    def test_what_a_population_trained_with_is_told_again_too(self, uri: str, tmp_path: Path) -> None:
        spec = experiment(scheduler={"kind": "pbt"}, search={"kind": "random", "trials": 2})
        job = Recorded(spec, uri, tmp_path / "job")
        job.close()
        job.unfollowed()
        parent, trial = job.next(), job.next()
        first = dict(trial.assignment)
        job.report(parent, 0.9, job.folder / "store")
        job.report(trial, 0.5, job.folder / "store")
        job.mutate(trial, parent, {"optimizer.lr": 0.25, "optimizer.momentum": 0.5})
        job.report(trial, 0.7, job.folder / "store")
        for ours in (parent, trial):
            job.end(ours)
        again = job.again()
        again.finish()
        assert again.history(1, "optimizer.lr") == [(1, first["optimizer.lr"]), (2, 0.25)]
        assert float(again.run_of(1).data.params["optimizer.lr"]) == first["optimizer.lr"]
        assert again.run_of(1).data.tags["tuner.mutations"] == "1"


def test_a_name_that_is_recorded_as_another_is_told_by_the_one_that_is_there() -> None:
    recorder, said = Recorder(experiment(), "sqlite:///none.db"), list[str]()
    recorder._warn = said.append
    recorder._warn_of_names(
        [f"{SPACE}config.lr(head)", "config.lr(head)", f"{FIXED}config.50%", "best_mAP@50", "mAP@50"]
    )
    names = {"config.lr(head)": "config.lr(head)", "config.50%": f"{FIXED}config.50%", "mAP@50": "mAP@50"}
    listed = ", ".join(f"{name!r} is recorded as {recorded(there)!r}" for name, there in names.items())
    assert said == [f"MLflow does not accept every name: {listed}"]


def test_the_writer_imports_neither_torch_nor_the_specification() -> None:
    """They take seconds, and the record is opened while the user waits."""
    script = "import sys, tuner.tracking.record.writer\nprint('\\n'.join(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert not {"torch", "ray", "optuna", "tuner.spec.experiment", "tuner.trials.trial"} & set(ran.stdout.split())
