"""`tuner train FILE --profile`, as somebody types it."""

import gzip
import json
import re
from io import StringIO
from pathlib import Path

import pytest
from commands import tuner
from rich.console import Console

from tuner.cli.printing.profile import print_profile
from tuner.train.profiling import profiler
from tuner.train.profiling.profile import Profile
from tuner.train.profiling.trace import Operator
from tuner.train.trial_config import TrialConfig

DIGITS = """
name: small
objective: val_accuracy
trial:
  data: {kind: digits, limit: 320, batch_size: 32}
  model: {kind: mlp}
  epochs: 30
space:
  optimizer.lr: {grid: [0.01, 1.0e+12]}
search: {kind: grid}
"""
FUNCTION = """
name: mine
objective: {metric: loss, mode: min}
trial: {target: "mine:train", config: {lr: 0.1}}
search: {kind: grid}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(profiler, "_LEAST", 0)
    (tmp_path / "small.yaml").write_text(DIGITS)
    return tmp_path


@pytest.mark.slow
def test_it_prints_where_the_time_goes_and_what_to_change(folder: Path) -> None:
    status, said = tuner(
        folder, "train", "small.yaml", "--profile", "trial.data.batch_size=64", "-o", "my.json.gz", COLUMNS="200"
    )
    assert status == 0, said
    shares = {name: float(share) for name, share in re.findall(r"│ ([a-z ]+?) +│.*?│ +([\d.]+) % │", said)}
    whole = shares.pop("all")
    assert set(shares) == {"operators", "host", "waiting for data", "evaluation", "checkpoint", "report"}
    assert whole == 100 and sum(shares.values()) == pytest.approx(100)
    assert "aten::addmm" in said and "kernels" not in said and "launches" not in said
    assert re.search(r"what to change:\n- .*(trial|resources)\.", said)
    assert "trace: my.json.gz" in said and "ui.perfetto.dev" in said and "chrome://tracing" in said
    with gzip.open(folder / "my.json.gz", "rt") as file:
        names = [each["name"] for each in json.load(file)["traceEvents"] if each["ph"] == "X"]
    assert {"tuner: step 5", "tuner: waiting for data", "tuner: evaluation", "tuner: checkpoint"} <= set(names)
    assert not (folder / "mlflow.db").exists(), "a profile is no job"


@pytest.mark.slow
def test_a_trial_of_the_plan_that_diverges_has_no_profile(folder: Path) -> None:
    status, said = tuner(folder, "train", "small.yaml", "--profile", "--trial", "1")
    assert status == 1 and "diverged" in said and "what to change" not in said


def test_a_function_has_a_loop_of_its_own(folder: Path) -> None:
    (folder / "mine.yaml").write_text(FUNCTION)
    (folder / "mine.py").write_text("def train(config):\n    return {'loss': 1}\n")
    status, said = tuner(folder, "train", "mine.yaml", "--profile")
    assert status == 2 and "trial.target: a function of your own cannot be profiled" in said
    assert "torch.profiler" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--run", "abc"), "--run: trains a recorded trial to its end: it does not go with --profile"),
        (("--output", "kept"), "--output: kept is no trace"),
        (("--output", "none/x.json.gz"), "--output: there is no folder none"),
        (("--resume",), "--resume"),
    ],
)
def test_options_that_have_no_meaning_for_it_are_refused(folder: Path, options: tuple[str, ...], told: str) -> None:
    status, said = tuner(folder, "train", "small.yaml", "--profile", *options)
    assert status == 2 and told in said and "Traceback" not in said
    assert not list(folder.glob("*.gz"))


def test_a_trace_that_cannot_be_written_is_told_before_the_training(folder: Path) -> None:
    (folder / "small.trace.json.gz").mkdir()
    status, said = tuner(folder, "train", "small.yaml", "--profile")
    assert status == 2 and "small.trace.json.gz is a folder" in said and "epoch" not in said


def test_on_a_gpu_it_prints_kernels_and_launches_and_how_steps_are_computed() -> None:
    config = TrialConfig.model_validate({"data": {"kind": "digits"}, "model": {"kind": "mlp"}})
    profile = Profile(
        config=config,
        device="a GPU",
        seconds={"kernels": 3, "launches": 1, "host": 0.5, "waiting for data": 0.1, "evaluation": 0.3, "report": 0.1},
        steps=1000,
        images=64_000,
        waiting_in_evaluation=0.2,
        operators=[Operator("void " + "long_" * 30 + "kernel()", 0.002, 4), Operator("aten::mm", 0.001, 2)],
        launches=6,
        slowdown=1.25,
        measured=(100, 500),
        epochs=3,
        precision="bfloat16",
        how="eagerly, since trial.graph is off",
    )
    screen = StringIO()
    print_profile(Console(file=screen, width=160), profile, ["do [this]"], Path("x.trace.json.gz"))
    said = screen.getvalue()
    assert "an epoch on a GPU, bfloat16: 5.00 s, 13,913 images/s in training" in said
    assert "steps are computed eagerly, since trial.graph is off" in said
    assert "scaled from 100 steps of 1,000 and 500 validation images" in said
    rows = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]]
        for line in said.splitlines()
        if "│" in line
    }
    assert rows["kernels"][:3] == ["3.000", "3.000", "60.0 %"] and rows["launches"][:3] == ["1.000", "1.000", "20.0 %"]
    assert rows["evaluation"][:3] == ["0.300", "", "6.0 %"] and "0.20 s of it is waiting" in rows["evaluation"][3]
    assert rows["all"][2] == "100.0 %" and rows["aten::mm"] == ["2.0", "500.0", "1.000", "33.3 %"]
    assert "25% longer" in said and "- do [this]" in said


def test_a_trial_in_several_processes_is_refused_with_what_to_do(folder: Path) -> None:
    for resources, hint in {
        "{gpu: 0, workers: 2}": "profile one process: resources.workers=null, and its share",
        "{gpu: 2}": "profile one process: resources.gpu=1, and its share",
        "{gpu: 2, workers: 2}": "profile one process: resources.gpu=1 resources.workers=null, and its share",
    }.items():
        status, said = tuner(folder, "train", "small.yaml", "--profile", f"resources={resources}")
        assert status == 2 and "a trial in several processes cannot be profiled" in said and hint in said, said
