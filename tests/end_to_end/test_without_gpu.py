"""A job that was given no GPU, on a machine that has one: it belongs to others, and may have no room left."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import experiment
from in_process import in_process
from mlflow import MlflowClient
from rich.console import Console

from tuner.jobs.driver import run
from tuner.jobs.result import OK
from tuner.storage.uris import absolute


@pytest.fixture
def full_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU without room: to compute on it fails, and so does to ask it how full it is, which takes memory of it."""

    def ask(number: int) -> Any:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "mem_get_info", ask)


@pytest.mark.slow
@pytest.mark.usefixtures("full_gpu")
def test_neither_its_trials_nor_the_test_of_the_winner_take_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    spec = experiment(search={"kind": "random", "trials": 1}, resources={"cpu": 1, "gpu": 0})
    screen = StringIO()
    with in_process():
        result = run(spec, console=Console(file=screen))
    assert result.status == OK, screen.getvalue()
    assert [trial.status for trial in result.trials] == ["completed"]
    assert result.trials[0].best_report["device"] == "cpu" and "test_accuracy" in result.test
    client = MlflowClient(absolute("sqlite:///mlflow.db"))
    [recorded] = client.search_runs([client.get_experiment_by_name("small").experiment_id], "tags.`tuner.trial` = '0'")
    names = {name for name in recorded.data.metrics if name.startswith("system/")}
    assert names and not any("gpu" in name for name in names)
