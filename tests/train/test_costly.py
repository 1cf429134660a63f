"""Metrics that are measured only where an experiment names them: the latency of the model's ONNX file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import tuner
from epochs import trained
from in_process import in_process
from thread_writers import thread_writers

from tuner.errors import UserError
from tuner.spec.experiment import ExperimentSpec
from tuner.tasks.metrics import COSTLY_METRICS
from tuner.train.costly import Costly
from tuner.train.trial_config import TrialConfig

NAME = "onnx_latency_ms"
DIGITS = {"kind": "digits", "limit": 64, "batch_size": 32}
CNN = {"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8, "dropout": 0.3}
MISSING = "onnx_latency_ms: onnx, onnxscript, onnxruntime are not installed"


def config(**parts: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {"data": DIGITS, "model": CNN, "epochs": 2, "seed": 7, "precision": "float32"} | parts
    )


def spec(**parts: Any) -> ExperimentSpec:
    trial = {"data": DIGITS, "model": CNN}
    space = {"optimizer.lr": {"uniform": [0.01, 0.1]}}
    base = {"name": "x", "objective": "val_accuracy", "trial": trial, "space": space}
    return ExperimentSpec.model_validate(base | {"search": {"kind": "bayesian", "trials": 3}} | parts)


def test_what_measures_them_is_known_for_each() -> None:
    assert Costly(COSTLY_METRICS)._names == list(COSTLY_METRICS)


@pytest.mark.parametrize(
    ("parts", "measured"),
    [
        ({"objective": ["val_accuracy", NAME]}, [NAME]),
        ({"constraints": [f"2 * {NAME} <= 3"]}, [NAME]),
        ({"stop": {NAME: 1}}, [NAME]),
        ({"trial": {"data": DIGITS, "model": CNN, "early_stopping": {"metric": NAME, "patience": 2}}}, [NAME]),
        ({"objective": ["val_accuracy", "latency_ms"], "constraints": ["latency_ms <= 3"]}, []),
    ],
)
def test_an_experiment_names_them_in_four_places(parts: dict[str, Any], measured: list[str]) -> None:
    assert spec(**parts).costly_metrics == measured


def test_a_function_of_the_users_own_measures_what_it_likes(own: Callable[[str], str]) -> None:
    target = f"{own('def train(config): ...')}:train"
    found = spec(
        objective=NAME, trial={"target": target, "config": {"width": 8}}, space={"config.width": {"int": [4, 8]}}
    )
    assert found.costly_metrics == [] and found.objective.mode == "min"


@pytest.mark.slow
def test_a_trial_measures_it_once_and_learns_the_same(tmp_path: Path) -> None:
    reports = trained(config(), tmp_path / "measured", costly=[NAME])
    [latency] = {report.pop(NAME) for report in reports}
    assert 0 < latency < 1000
    assert trained(config(), tmp_path / "not") == reports, "and it is not measured where nothing names it"


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"ema": {"decay": 0.9}, "precision": "bfloat16"},
        {"model": {"kind": "yolo", "width": 4}, "task": {"kind": "detection"}, "data": "scenes"},
        {"early_stopping": {"patience": 1, "metric": NAME}},
    ],
)
def test_it_is_an_objective_of_models_of_other_kinds(parts: dict[str, Any], tmp_path: Path) -> None:
    if parts.get("data") == "scenes":
        parts = parts | {"data": {"kind": "mnist_scenes", "size": 32, "source": "digits", "largest": 28, "scenes": 40}}
    reports = trained(config(**parts), tmp_path, objective="epoch_seconds", costly=[NAME])
    assert len({report[NAME] for report in reports}) == 1 and len(reports) == 2


@pytest.mark.slow
def test_a_model_that_cannot_be_exported_fails_and_says_why(own: Callable[[str], str], tmp_path: Path) -> None:
    parts = config(model={"kind": "import", "target": f"{own(OWN)}:Net"})
    with pytest.raises(UserError, match="onnx_latency_ms: import cannot be exported as a graph: ") as caught:
        trained(parts, tmp_path, objective=NAME)
    assert "by torch's operators alone" in str(caught.value) and "--format" not in str(caught.value)


def test_without_the_packages_nothing_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.process.packages.find_spec", lambda name: None)
    (tmp_path / "job.yaml").write_text(JOB)
    assert tuner(tmp_path, "validate", "job.yaml")[0] == 0, "another machine may have them"
    for command in ("run", "train"):
        status, said = tuner(tmp_path, command, "job.yaml")
        assert status == 2 and MISSING in said and "pip install 'tuner[export]'" in said, said
    assert [each.name for each in tmp_path.iterdir()] == ["job.yaml"]
    with pytest.raises(UserError, match=MISSING):  # a worker that lacks them
        trained(config(), tmp_path / "trial", costly=[NAME])
    assert not (tmp_path / "trial").exists()


@pytest.mark.slow
def test_a_job_looks_for_models_that_are_right_and_fast(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    with in_process(), thread_writers():
        status, said = tuner(tmp_path, "run", "job.yaml")
        assert status == 0, said
        listed = tuner(tmp_path, "results", "job", "--csv")[1].splitlines()
    assert NAME in listed[0], listed


OWN = """
from torch import nn


class Net(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.layer = nn.Linear(channels * 8 * 8, classes)

    def forward(self, images):
        found = self.layer(images.flatten(1))
        return found if found.sum() > 0 else -found
"""

JOB = """
name: job
objective: [val_accuracy, onnx_latency_ms]
constraints: ["onnx_latency_ms <= 100"]
trial:
  data: {kind: digits, limit: 64, batch_size: 32}
  model: {kind: cnn, width1: 4, width2: 4}
space:
  model.hidden: {choice: [8, 64]}
search: {kind: bayesian, trials: 2}
storage: runs
tracking: {uri: "sqlite:///mlflow.db", register: false}
"""
