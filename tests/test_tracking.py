import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Write
from mlflow import MlflowClient

from tuner.errors import UserError
from tuner.preflight import MLFLOW_DEFAULT, check_store, default_uri, masked, tracking_uri
from tuner.run import plan
from tuner.spec import ExperimentSpec, load
from tuner.store import download_checkpoint
from tuner.tracking import Recorder
from tuner.trials import Trial


@pytest.fixture
def spec(write: Write, minimal: str) -> ExperimentSpec:
    return load(write(minimal))


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path}/store.db"


def take(trial: Trial, spec: ExperimentSpec, epoch: int, value: float) -> dict[str, Any]:
    report: dict[str, Any] = dict.fromkeys(spec.trial.metrics, 0.5) | {"epoch": epoch, "val_accuracy": value}
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


def test_thousands_of_metrics_travel_in_batches_and_arrive_once(spec: ExperimentSpec, uri: str) -> None:
    recorder, [trial, _] = Recorder(spec, uri), plan(spec)
    links = recorder.open("job", "runs/job", Path(), 2)
    recorder.trial_started(trial)
    recorder.trial_started(trial)  # begun again, after a crash
    for epoch in range(1, 301):
        recorder.trial_reported(trial, take(trial, spec, epoch, epoch / 1000))
    trial.status, trial.ended = "completed", time.time()
    recorder.trial_ended(trial)
    recorder.job_ended("FINISHED", {"best_val_accuracy": 0.3}, winner=trial)
    recorder.close()
    assert recorder.failure is None
    client = MlflowClient(uri)
    runs = client.search_runs([links.experiment_id])
    assert len(runs) == 2  # the parent and one trial: the other has not begun
    parent = client.get_run(links.parent_run_id)
    run_id = parent.data.tags["tuner.winner_run"]
    for name in spec.trial.metrics:
        assert [metric.step for metric in client.get_metric_history(run_id, name)] == list(range(1, 301))
    assert client.get_run(run_id).data.metrics["best_epoch"] == 300
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_store_that_goes_away_ends_no_job_and_is_told(spec: ExperimentSpec, uri: str, tmp_path: Path) -> None:
    recorder, [trial, _] = Recorder(spec, uri), plan(spec)
    recorder.open("job", "runs/job", Path(), 2)
    (tmp_path / "store.db").write_bytes(b"no database any more")
    recorder.trial_started(trial)
    recorder.trial_reported(trial, take(trial, spec, 1, 0.5))
    recorder.close()
    assert recorder.failure is not None


def test_an_experiment_that_was_deleted_is_refused(spec: ExperimentSpec, uri: str) -> None:
    client = MlflowClient(uri)
    client.delete_experiment(client.create_experiment(spec.name))
    with pytest.raises(UserError, match="was deleted in MLflow") as raised:
        Recorder(spec, uri).open("job", "runs/job", Path(), 2)
    assert "mlflow experiments restore" in str(raised.value)


def test_a_run_without_a_checkpoint_is_a_user_s_mistake(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match="no checkpoint of a run 'nothing'"):
        download_checkpoint("nothing")


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


def test_what_cannot_be_written_of_one_trial_costs_no_other(spec: ExperimentSpec, uri: str) -> None:
    recorder, [broken, sound] = Recorder(spec, uri), plan(spec)
    links = recorder.open("job", "runs/job", Path(), 2)
    for trial in (broken, sound):
        recorder.trial_started(trial)
        recorder.trial_reported(trial, take(trial, spec, 1, 0.5))
    broken.checkpoint = "nowhere://gone"
    for trial in (broken, sound):
        trial.status = "completed"
        recorder.trial_ended(trial)
    recorder.job_ended("FINISHED", {})
    recorder.close()
    assert recorder.failure is not None
    status = {
        run.data.tags.get("tuner.trial"): run.info.status
        for run in MlflowClient(uri).search_runs([links.experiment_id])
    }
    assert status == {"0": "RUNNING", "1": "FINISHED", None: "FINISHED"}
