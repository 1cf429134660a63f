"""Two jobs of one name that run at once: each has its own folder, search and runs."""

import json
from pathlib import Path

import pytest
from conftest import start_job
from mlflow import MlflowClient

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("store_made")]

JOB = """
name: same
objective: val_accuracy
trial:
  data: {kind: digits, limit: 200}
  model: {kind: cnn, width1: 4, width2: 4, hidden: 8}
  optimizer: {kind: sgd}
  epochs: 2
space:
  optimizer.lr: {loguniform: [0.001, 0.3]}
search: {kind: bayesian, trials: 5, startup: 2, seed: 0}
resources: {cpu: 2}
"""


def test_they_do_not_touch_each_other(tmp_path: Path) -> None:
    running = []
    for name in ("one", "other"):
        file = tmp_path / f"{name}.yaml"
        file.write_text(JOB)
        running.append(start_job(tmp_path, file.name))
    said = [process.communicate(timeout=600)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said

    folders = sorted((tmp_path / "runs" / "same").iterdir())
    assert len(folders) == 2
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri, registry_uri=uri)  # or it is the one that MLflow was told of last
    experiment = client.get_experiment_by_name("same")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = {run.data.tags["tuner.job"]: run for run in runs if run.data.tags["tuner.role"] == "parent"}
    assert sorted(parents) == [folder.name for folder in folders]
    tried = []
    for folder in folders:
        parent = parents[folder.name]
        assert parent.info.status == "FINISHED"
        below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        assert sorted(run.data.tags["tuner.trial"] for run in below) == list("01234")
        assert {run.info.status for run in below} == {"FINISHED"}
        for run in below:
            assert [p.step for p in client.get_metric_history(run.info.run_id, "val_loss")] == [1, 2]
        assert len(list(folder.glob("trial-*"))) == 5
        events = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
        begun = {event["trial"]: event["assignment"]["optimizer.lr"] for event in events if event["event"] == "started"}
        assert sorted(begun) == [0, 1, 2, 3, 4]
        tried.append([begun[number] for number in range(5)])
    # Each search was told of its own trials alone: of two with one seed the first are the same.
    assert tried[0][:2] == tried[1][:2]
    assert len(client.search_model_versions("name='same'")) == 2
