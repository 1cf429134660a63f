"""The teacher of a job: it is found and checked before the job starts, which keeps its own copy."""

import shutil
from pathlib import Path

import pytest
import torch
from commands import tuner
from in_process import in_process
from mlflow import MlflowClient
from thread_writers import thread_writers

from tuner.jobs.result import OK
from tuner.spec.source import read
from tuner.storage.yaml import write_yaml
from tuner.train.checkpoint import Save
from tuner.train.trial_config import TrialConfig

JOB = """
name: small
objective: val_loss
trial:
  data: {kind: digits, limit: 64}
  model: {kind: mlp, layers: 1, width: 4}
  distillation: {teacher: large}
space:
  distillation.alpha: {grid: [0.2, 0.8]}
search: {kind: grid}
budget: {trials: 1}
resources: {cpu: 1}
storage: runs
tracking: {register: false, uri: "sqlite:///store.db"}
"""


@pytest.fixture
def place(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store, an experiment and the checkpoint that it names."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path / "store.db")
    (tmp_path / "job.yaml").write_text(JOB)
    config = TrialConfig.model_validate({"data": {"kind": "digits"}, "model": {"kind": "cnn"}, "seed": 0})
    torch.manual_seed(0)
    (tmp_path / "large").mkdir()
    Save(config, config.build_model().state_dict(), {}, {"epoch": 1})(tmp_path / "large")
    return tmp_path


@pytest.mark.slow
def test_a_job_keeps_a_copy_and_goes_on_with_it(place: Path) -> None:
    with in_process(), thread_writers():
        status, said = tuner(place, "run", "job.yaml")
        assert status == OK, said
        [job] = (place / "runs" / "small").iterdir()
        assert (job / "teacher" / "model.pt").read_bytes() == (place / "large" / "model.pt").read_bytes()
        shutil.rmtree(place / "large")
        (job / "teacher").rename(place / "hidden")
        status, said = tuner(place, "run", "job.yaml", "budget.trials=2", "--extend", "all")
        assert status == 2 and "the job's copy of its teacher is gone" in said
        (place / "hidden").rename(job / "teacher")
        status, said = tuner(place, "run", "job.yaml", "budget.trials=2", "--extend", "all")
        assert status == OK and "2 │" in said, said
    client = MlflowClient(f"sqlite:///{place}/store.db")
    runs = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert {run.data.tags["tuner.teacher"] for run in runs if run.data.tags["tuner.role"] == "parent"} == {
        str(place / "large")
    }


WRONG = [
    ("trial.distillation.teacher=nowhere", "trial.distillation.teacher: there is no experiment, no job"),
    ("trial.distillation.teacher=./nowhere", "trial.distillation.teacher: there is no folder"),
    ("trial.data.canvas=12", "takes images of 8x8 with 1 channels, and those of the trial are 12x12"),
    (
        "space={distillation.teacher: {choice: [large, larger]}}",
        "distillation.teacher: a job has one teacher",
    ),
    ("space={data.canvas: {choice: [10, 12]}}", "those of the trial are 10x10"),
]


@pytest.mark.parametrize(("override", "told"), WRONG)
def test_what_cannot_teach_is_told_before_anything_starts(place: Path, override: str, told: str) -> None:
    status, said = tuner(place, "run", "job.yaml", override, "--dry-run")
    assert status == 2 and told in " ".join(said.split()), said
    assert not (place / "runs").exists()


@pytest.mark.parametrize(("override", "told"), WRONG)
def test_validate_tells_it_as_a_job_does(place: Path, override: str, told: str) -> None:
    overridden(place / "job.yaml", override)
    status, said = tuner(place, "validate", "job.yaml")
    assert status == 2 and told in " ".join(said.split()), said


def overridden(file: Path, override: str) -> None:
    """Write an override into an experiment's file."""
    file.write_text(write_yaml(read(file, [override]).data))


def test_validate_reads_no_weights_and_tells_what_is_no_checkpoint(place: Path) -> None:
    assert tuner(place, "validate", "job.yaml")[0] == 0
    (place / "large" / "model.pt").write_bytes(b"")
    assert tuner(place, "validate", "job.yaml")[0] == 0
    (place / "large" / "trial.yaml").unlink()
    status, said = tuner(place, "validate", "job.yaml")
    assert status == 2, said
    assert "distillation.teacher: is not a checkpoint: trial.yaml not found" in " ".join(said.split()), said


def test_validate_says_that_a_store_does_not_answer(place: Path) -> None:
    overridden(place / "job.yaml", "trial.distillation.teacher=large@champion")
    overridden(place / "job.yaml", "tracking.uri=http://127.0.0.1:9")
    status, said = tuner(place, "validate", "job.yaml")
    assert status == 0 and "job.yaml: valid, 2 trials" in said, said
    assert "teacher: large@champion was not looked for, because its store does not answer" in " ".join(said.split())


def test_a_teacher_that_only_the_space_names_is_told(place: Path) -> None:
    text = (place / "job.yaml").read_text().replace("  distillation: {teacher: large}\n", "")
    text = text.replace("distillation.alpha: {grid: [0.2, 0.8]}", "distillation: {grid: [null, {teacher: large}]}")
    (place / "job.yaml").write_text(text)
    status, said = tuner(place, "run", "job.yaml")
    assert status == 2 and "space.distillation: a job has one teacher" in " ".join(said.split()), said
    assert not (place / "runs").exists()


def test_a_copy_that_cannot_be_written_is_told_and_leaves_no_job(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.fs.copy_files", full)
    with in_process(), thread_writers():
        status, said = tuner(place, "run", "job.yaml")
    assert status == 2 and "the teacher cannot be copied: [Errno 28]" in " ".join(said.split()), said
    assert not list((place / "runs").iterdir())


def test_a_single_trial_learns_from_it_too(place: Path) -> None:
    status, said = tuner(place, "train", "job.yaml")
    assert status == 0 and "epoch 1/1" in said, said
