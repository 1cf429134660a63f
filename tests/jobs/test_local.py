import io
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import PrivateAttr
from rich.console import Console

from tuner.data import MNIST
from tuner.errors import UserError
from tuner.jobs.local.training import train_alone
from tuner.process.gpus import Gpu
from tuner.ray_backend.cluster import resources
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.sections import Resources
from tuner.train.checkpoint import Save, read_state
from tuner.train.loop import fit
from tuner.train.trial_config import TrialConfig


def experiment(**trial: Any) -> ExperimentSpec:
    parts: dict[str, Any] = {
        "data": {"kind": "digits", "limit": 200},
        "model": {"kind": "cnn", "width1": 4, "width2": 4, "hidden": 16},
        "optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9},
        "epochs": 3,
        "precision": "float32",
    }
    space = {"optimizer.lr": {"grid": [0.01, 0.1]}, "model.dropout": {"grid": [0.0, 0.2]}}
    return ExperimentSpec.model_validate(
        {
            "name": "alone",
            "objective": "val_accuracy",
            "trial": parts | trial,
            "space": space,
            "search": {"kind": "grid"},
        }
    )


def said(spec: ExperimentSpec, number: int | None = None, output: Path | None = None) -> list[str]:
    """The lines that a training alone writes."""
    text = io.StringIO()
    train_alone(spec, number=number, output=output, console=Console(file=text, width=80))
    return text.getvalue().splitlines()


def kept(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


def reference(spec: ExperimentSpec, assignment: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics of each epoch of the same trial, trained by `fit`."""
    seen: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any], save: Save) -> None:
        seen.append(metrics)

    torch.set_num_threads(1)  # a training alone has taken more
    config = spec.trial_config(assignment)
    assert isinstance(config, TrialConfig)
    fit(config, spec.objective, report)
    return seen


def test_a_line_says_what_is_trained_and_a_line_tells_of_each_epoch(tmp_path: Path) -> None:
    spec = experiment()
    lines = said(spec)
    epochs = reference(spec, {})
    assert lines[0] == f"seed {spec.trial_config({}).seed}, digits, cnn"
    assert len(lines) == 4
    for line, metrics in zip(lines[1:], epochs, strict=True):
        assert line.startswith(f"epoch {metrics['epoch']}/3 ")
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            assert f"{name} {metrics[name]:.4f}" in line


@pytest.mark.parametrize("number", [0, 3])
def test_a_trial_of_the_plan_gives_its_own_numbers(number: int, tmp_path: Path) -> None:
    spec = experiment(epochs=1)
    lines = said(spec, number)
    assignment = (spec.plan() or [])[number]
    [metrics] = reference(spec, assignment)
    assert f"seed {spec.trial_config(assignment).seed}," in lines[0]
    assert f"val_loss {metrics['val_loss']:.4f}" in lines[1]
    assert said(spec)[0] != lines[0], "the trial of the file as it stands is another one"


def test_a_trial_without_a_gpu_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    without = ExperimentSpec.model_validate(experiment(epochs=1).model_dump(mode="json") | {"resources": {"gpu": 0}})
    expected = said(without)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # it sees one, that is another's
    assert [line.rpartition("  ")[0] for line in said(without)[:2]] == [line.rpartition("  ")[0] for line in expected]


def test_the_best_epoch_s_checkpoint_is_kept(tmp_path: Path) -> None:
    spec = experiment(epochs=6, optimizer={"kind": "sgd", "lr": 0.3})
    lines = said(spec, output=tmp_path / "new" / "best")
    epochs = reference(spec, {})
    best = max(epochs, key=lambda metrics: (metrics["val_accuracy"], metrics["epoch"]))
    assert kept(tmp_path / "new" / "best")["epoch"] == best["epoch"]
    assert read_state(tmp_path / "new" / "best")[1]["epoch"] == best["epoch"]
    marked = [line for line in lines if line.endswith("best so far")]
    assert marked[-1].startswith(f"epoch {best['epoch']}/6 ")
    assert lines[-1] == f"best checkpoint: {tmp_path / 'new' / 'best'}"


@pytest.mark.parametrize("number", [4, -1])
def test_a_trial_that_is_not_in_the_plan(number: int) -> None:
    with pytest.raises(UserError, match=f"no trial {number}") as error:
        said(experiment(), number)
    assert error.value.problems[0].hint == "allowed: 0 to 3"


def test_a_search_that_learns_has_no_trial_by_number() -> None:
    spec = experiment()
    whole = spec.model_dump(mode="json") | {"search": {"kind": "bayesian", "trials": 3}}
    spec = ExperimentSpec.model_validate(whole)
    with pytest.raises(UserError, match="bayesian search has no plan") as error:
        said(spec, 0)
    assert error.value.problems[0].key == "--trial" and "trial.optimizer.lr=0.01" in error.value.problems[0].hint
    assert len(said(spec)) == 4, "the trial of the file is there all the same"


OWN = """
import tempfile
from collections.abc import Callable
from pathlib import Path

from ray import tune


def train(config):
    for step in (3, 1, 2):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "step").write_text(str(step))
            tune.report({"loss": step, "word": "x"}, checkpoint=tune.Checkpoint.from_directory(folder))
    return {"val": {"loss": config["lr"]}}


def ties(config):
    yield from (0, 0, 1)


def steps(config):
    yield 4
    yield {"loss": 3, "done": True}
    yield 1


def other(config):
    return {"los": 1}
"""


def own_spec(target: str) -> ExperimentSpec:
    trial = {"target": target, "config": {"lr": 0.5}}
    parts = {"name": "own", "objective": {"metric": "loss", "mode": "min"}, "trial": trial}
    return ExperimentSpec.model_validate(parts | {"search": {"kind": "grid"}})


def test_a_function_of_ones_own_reports_to_the_terminal(
    own: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = own(OWN)
    lines = said(own_spec(f"{module}:train"), output=tmp_path / "best")
    assert lines[:3] == ["report 1  loss 3  best so far", "report 2  loss 1  best so far", "report 3  loss 2"]
    assert lines[3:] == ["report 4  val/loss 0.5000"]
    assert (tmp_path / "best" / "step").read_text() == "1"
    assert "'word' was left out: it was a str" in capsys.readouterr().err
    tied = ["report 1  loss 0  best so far", "report 2  loss 0  as good as the best so far"]
    assert said(own_spec(f"{module}:ties")) == [*tied, "report 3  loss 1"]
    assert said(own_spec(f"{module}:steps"))[-1] == "report 2  loss 3  best so far"
    assert said(own_spec(f"{module}:other"))[-1] == "never reported loss as a number: it reported los"


def test_a_folder_that_holds_something_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        said(experiment(), output=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    said(experiment(epochs=1), output=tmp_path)
    assert kept(tmp_path)["epoch"] == 1


def test_it_says_why_it_ended_early() -> None:
    lines = said(experiment(epochs=5, early_stopping={"patience": 1, "min_delta": 1.0}))
    assert lines[-1] == "no improvement for 1 epoch"
    assert len(lines) == 1 + 2 + 1


def test_a_trial_that_diverges_is_told_and_not_raised(tmp_path: Path) -> None:
    lines = said(experiment(optimizer={"kind": "sgd", "lr": 1e20}), output=tmp_path / "best")
    assert lines[-1].startswith("diverged: the loss became")
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize("cpu", [1, 2])
def test_it_computes_on_as_many_threads_as_a_trial_is_given(cpu: int) -> None:
    spec = ExperimentSpec.model_validate(experiment(epochs=1).model_dump() | {"resources": {"cpu": cpu}})
    said(spec)
    assert torch.get_num_threads() == cpu


def test_it_says_that_it_trains_on_other_data_than_the_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}/"
    monkeypatch.setitem(MNIST.__private_attributes__, "_mirrors", PrivateAttr(default=(closed,)))
    monkeypatch.setenv("TUNER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    data = {"kind": "mnist", "limit": 64}
    lines = said(experiment(data=data | {"offline": "digits"}, epochs=1), output=tmp_path / "best")
    assert "scikit-learn's digits instead" in lines[0]
    assert lines[1].endswith(", digits, cnn")
    assert "kind: digits" in (tmp_path / "best" / "trial.yaml").read_text()
    with pytest.raises(UserError, match="offline: digits"):
        said(experiment(data=data))


@pytest.mark.parametrize("gpu", [1, 0.5])
def test_a_gpu_that_is_asked_for_and_cannot_be_used_is_refused(gpu: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "why_none", lambda: "the driver is too old: update it")
    spec = experiment().model_copy(update={"resources": Resources(cpu=1, gpu=gpu)})
    with pytest.raises(UserError, match=r"resources\.gpu: a trial asks for .* sees none: the driver is too old"):
        said(spec)


def test_a_gpu_that_cannot_be_used_is_said_to_be_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "why_none", lambda: "the driver is too old: update it")
    monkeypatch.setattr(resources, "installed", lambda: [Gpu("Tesla T4", (7, 5), 2**34)])
    lines = said(experiment())
    assert lines[0].startswith("trials train on CPU cores and not on Tesla T4: the driver is too old")
