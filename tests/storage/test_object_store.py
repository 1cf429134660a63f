"""Checkpoints and journal in an object store: a real server that speaks S3, on this machine."""

import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import tuner as command
from conftest import eventually, start_job
from in_process import in_process
from mlflow import MlflowClient
from moto.server import ThreadedMotoServer
from pyarrow.fs import FileSelector, FileSystem, copy_files
from thread_writers import thread_writers

import tuner
from tuner.errors import UserError
from tuner.storage.filesystem import read_parts
from tuner.train.checkpoint import Save
from tuner.train.trial_config import TrialConfig
from tuner.trials.journal import FILE

pytestmark = pytest.mark.slow

JOB = """
name: far
objective: val_accuracy
trial:
  data: {{kind: digits, limit: 300}}
  model: {{kind: cnn, width1: 4, width2: 4, hidden: 8}}
  epochs: 4
space:
  optimizer.lr: {{loguniform: [1.0e-3, 0.1]}}
search: {{kind: random, trials: 4}}
checkpoints: {{keep: 2}}
storage: "{storage}"
tracking: {{uri: "sqlite:///mlflow.db"}}
"""


class Bucket:
    """A bucket, empty at first."""

    def __init__(self, address: str) -> None:
        self.options = f"endpoint_override={address}&scheme=http&region=us-east-1"
        self.files, _ = FileSystem.from_uri(f"s3://bucket?{self.options}&allow_bucket_creation=true")
        self.files.create_dir("bucket")

    def uri(self, path: str) -> str:
        return f"s3://bucket/{path}?{self.options}"

    def names(self, pattern: str) -> list[str]:
        """Paths in the bucket of all that has this in its path."""
        found = self.files.get_file_info(FileSelector("bucket", recursive=True))
        return sorted(info.path for info in found if pattern in info.path)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "for-a-test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield Bucket("{}:{}".format(*server.get_host_and_port()))
    finally:
        server.stop()


def told(bucket: Bucket) -> list[dict[str, Any]]:
    """What the journal of the job tells."""
    found = bucket.names(FILE)
    text = b"".join(read_parts(bucket.uri(found[0].removeprefix("bucket/")))) if found else b""
    return [json.loads(line) for line in text.decode().splitlines()]


@pytest.mark.usefixtures("store_made")
def test_a_job_is_killed_and_goes_on(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB.format(storage=bucket.uri("runs")))
    process = start_job(tmp_path, "job.yaml")
    try:
        assert eventually(lambda: any(event["event"] == "ended" for event in told(bucket)), 300)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        said, _ = process.communicate(timeout=300)
    assert "Traceback" not in said, said
    with in_process(), thread_writers():
        status, said = command(tmp_path, "run", "job.yaml", "--resume")
    assert status == 0 and "Traceback" not in said, said
    assert "for-a-test" not in said

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("far")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`tuner.role` = 'trial'")
    assert sorted(run.data.tags["tuner.trial"] for run in runs) == ["0", "1", "2", "3"]
    best = sorted(runs, key=lambda run: -run.data.metrics["best_val_accuracy"])[:2]
    for run in runs:
        assert run.info.status == "FINISHED"
        curve = client.get_metric_history(run.info.run_id, "val_accuracy")
        assert [point.step for point in curve] == [1, 2, 3, 4]
        assert client.list_artifacts(run.info.run_id, "checkpoint")
    [parent] = client.search_runs([experiment.experiment_id], "tags.`tuner.role` = 'parent'")
    kept = Path(client.download_artifacts(parent.info.run_id, FILE)).read_text().splitlines()
    assert [json.loads(line)["event"] for line in kept].count("opened") == 2  # both runs of the job are told of
    there = {path.split("/")[4].partition("-resumed")[0] for path in bucket.names("model.pt")}
    assert there == {f"trial-{int(run.data.tags['tuner.trial']):04d}" for run in best}
    assert len(bucket.names("model.pt")) == 2  # the best of each, and no more


def test_a_model_loads_from_there(bucket: Bucket, tmp_path: Path) -> None:
    trial = TrialConfig.model_validate({"data": {"kind": "digits"}, "model": {"kind": "cnn"}, "seed": 0})
    Save(trial, trial.build_model().state_dict(), {}, {"epoch": 1})(tmp_path)
    uri = bucket.uri("elsewhere/job/trial-0000/checkpoint_000000")
    files, path = FileSystem.from_uri(uri)
    copy_files(str(tmp_path), path, destination_filesystem=files)
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(tuner.load(uri)(images), tuner.load(tmp_path)(images))
    with pytest.raises(UserError, match="the checkpoint cannot be read"):
        tuner.load(bucket.uri("elsewhere/job/trial-0001/checkpoint_000000"))
