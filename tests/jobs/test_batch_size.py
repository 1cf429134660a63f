"""``data.batch_size: auto`` in a job: measured once, before its trials, and never again."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from commands import tuner
from conftest import Played, experiment
from in_process import in_process
from thread_writers import thread_writers

from tuner.errors import UserError
from tuner.jobs import batch_size, driver
from tuner.jobs.batch_size import largest, with_measured_batches
from tuner.jobs.continuation import ResumeOptions, continued_job, new_job
from tuner.jobs.result import OK
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.yaml import parse_yaml
from tuner.train.fitting.batch_search import Measured
from tuner.train.trial_base import AnyTrial
from tuner.train.trial_config import TrialConfig
from tuner.trials.generator import TrialGenerator
from tuner.trials.journal import Journal

AUTO = {"kind": "digits", "limit": 64, "batch_size": "auto"}
CNN = {"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8}
TRIAL = {"data": AUTO, "model": CNN, "epochs": 2}


def spec_of(**parts: Any) -> ExperimentSpec:
    return experiment(**{"trial": TRIAL, "search": {"kind": "random", "trials": 3}} | parts)


def size_of(trial: AnyTrial) -> int | str:
    assert isinstance(trial, TrialConfig)
    return trial.data.batch_size


class TestWhatIsMeasured:
    def test_the_trial_of_the_file_where_neither_models_nor_data_are_searched(self) -> None:
        spec = spec_of(space={"optimizer.lr": {"loguniform": [1e-3, 0.1]}})
        assert largest(spec) == (spec.trial, {})
        assert largest(spec_of(space={"model.dropout": {"uniform": [0, 0.5]}})) == (spec.trial, {}), "no larger one"

    def test_the_largest_model_on_the_largest_images(self) -> None:
        space = {
            "model.width1": {"int": [2, 16]},
            "model.hidden": {"choice": [32, 8]},
            "data.size": {"choice": [8, 16]},
            "optimizer.lr": {"loguniform": [1e-3, 0.1]},
        }
        config, searched = largest(spec_of(space=space))
        assert searched == {"model.width1": 16, "model.hidden": 32, "data.size": 16}
        plain = config.model_dump()
        assert (plain["model"]["width1"], plain["data"]["size"]) == (16, 16)

    def test_the_largest_that_the_constraints_allow(self) -> None:
        spec = spec_of(space={"model.width1": {"choice": [2, 4, 64]}}, constraints=["model.width1 <= 10"])
        assert largest(spec)[1] == {"model.width1": 4}

    def test_the_number_stands_in_the_experiment_and_in_each_trial(self) -> None:
        asked: list[TrialConfig] = []

        def measure(config: TrialConfig) -> Measured:
            asked.append(config)
            return Measured(32, {32: 10.0}, "64 do not fit in memory", "cpu", steps=2)

        spec, found = with_measured_batches(spec_of(space={"model.width1": {"grid": [2, 6]}}), measure)
        assert found.model == "width1=6" and [config.data.batch_size for config in asked] == ["auto"]
        assert "batch_size: 32" in spec.to_yaml()
        plain = spec.trial_config({"model.width1": 2})
        assert plain == experiment(trial=TRIAL | {"data": AUTO | {"batch_size": 32}}).trial_config({"model.width1": 2})


class TestMistakes:
    def test_a_size_that_is_searched_and_measured(self) -> None:
        with pytest.raises(ValueError, match="auto measures the size that the space searches"):
            spec_of(space={"data.batch_size": {"grid": [8, 16]}})

    @pytest.mark.parametrize(
        ("key", "values"),
        [("data.batch_size", ["auto", 8]), ("data", [{"kind": "digits", "batch_size": "auto"}, {"kind": "digits"}])],
    )
    def test_auto_among_the_values_to_try(self, key: str, values: list[Any]) -> None:
        trial = TRIAL | {"data": AUTO | {"batch_size": 8}}
        with pytest.raises(ValueError, match="auto is measured once for all trials"):
            spec_of(trial=trial, space={key: {"choice": values}})

    @pytest.mark.parametrize("size", [0, -1, "autto", 1.5])
    def test_neither_a_number_nor_auto(self, size: Any) -> None:
        with pytest.raises(ValueError, match="batch_size"):
            spec_of(trial=TRIAL | {"data": AUTO | {"batch_size": size}})

    def test_a_constraint_on_a_number_that_is_not_known_yet(self) -> None:
        with pytest.raises(ValueError, match=r"batch_size is .auto., not a number"):
            spec_of(constraints=["data.batch_size <= 100"])


class TestResume:
    def begun(self, spec: ExperimentSpec, folder: Path, size: int | None) -> ExperimentSpec:
        """A job of which a trial has ended, as its journal tells it; return the experiment of the file."""
        spec = spec.model_copy(update={"storage": str(folder)})
        opening = new_job(spec)
        measured = spec.with_batch_size(size) if size else spec
        journal = Journal(opening.folder)
        journal.opened(measured, job=opening.job, trials=3, asked=3, batch_size=size, parent_run="run")
        generator = TrialGenerator(measured)
        trial = generator.next()
        assert trial is not None
        job = Played(measured, generator, journal)
        job.end(job.start(trial))
        return spec

    def test_takes_the_number_that_was_measured(self, tmp_path: Path) -> None:
        spec = self.begun(spec_of(), tmp_path, 16)
        opening = continued_job(spec, ResumeOptions(resume=True))
        assert size_of(opening.spec.trial) == opening.batch_size == 16
        assert opening.past is not None and size_of(opening.past.trials[0].config) == 16

    def test_the_number_may_be_written_down(self, tmp_path: Path) -> None:
        spec = self.begun(spec_of(), tmp_path, 16)
        assert continued_job(spec.with_batch_size(16), ResumeOptions(resume=True)).batch_size == 16
        with pytest.raises(UserError, match="was 16 when the job began, and is 8"):
            continued_job(spec.with_batch_size(8), ResumeOptions(resume=True))

    def test_a_job_whose_file_had_a_number_is_not_measured(self, tmp_path: Path) -> None:
        spec = self.begun(spec_of(trial=TRIAL | {"data": AUTO | {"batch_size": 8}}), tmp_path, None)
        with pytest.raises(UserError, match='was 8 when the job began, and is "auto"'):
            continued_job(spec_of().model_copy(update={"storage": spec.storage}), ResumeOptions(resume=True))


JOB = """
name: fitted
objective: val_loss
trial:
  data: {kind: digits, limit: 64, batch_size: auto}
  model: {kind: cnn, width1: 4, width2: 4, hidden: 8}
  optimizer: {kind: sgd, lr: 0.1}
space:
  model.dropout: {grid: [0.0, 0.1]}
search: {kind: grid}
tracking: {uri: "sqlite:///mlflow.db", register: false}
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "job.yaml").write_text(JOB)
    yield tmp_path / "job.yaml"


def test_what_starts_nothing_says_that_it_will_be_measured(file: Path) -> None:
    for command in (["validate", "job.yaml"], ["run", "job.yaml", "--dry-run"]):
        status, said = tuner(file.parent, *command)
        assert status == OK and "measured before the first trial" in " ".join(said.split())


@pytest.mark.slow
def test_a_job_and_what_is_recorded_of_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with in_process(), thread_writers():
        status, said = tuner(file.parent, "run", "job.yaml")
        assert status == OK, said
        assert "measuring the batch size" in said and "batch size " in said and "images/s" in said
        [journal] = (file.parent / "runs" / "fitted").glob("*/journal.jsonl")
        events = [json.loads(line) for line in journal.read_text().splitlines()]
        [opened] = [event for event in events if event["event"] == "opened"]
        size = opened["batch_size"]
        assert size in (16, 32, 64) and opened["spec"]["trial"]["data"]["batch_size"] == size

        def refuse(*arguments: Any, **named: Any) -> Any:
            raise AssertionError("it is measured once")

        monkeypatch.setattr(batch_size, "measure", refuse)
        monkeypatch.setattr(driver, "measured_here", refuse)
        file.write_text(JOB.replace("[0.0, 0.1]", "[0.0, 0.1, 0.2]"))
        status, said = tuner(file.parent, "run", "job.yaml", "--extend", "1")
        assert status == OK, said
        assert tuner(file.parent, "sync", "job.yaml")[0] == OK
    mlflow.set_tracking_uri(f"sqlite:///{file.parent / 'mlflow.db'}")
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    [parent] = [run for run in runs if run.data.tags["tuner.role"] == "parent"]
    assert parent.data.tags["tuner.batch_size"].startswith(f"batch size {size}, measured on cpu: 16: ")
    trials = [run for run in runs if run.data.tags["tuner.role"] != "parent"]
    assert [run.data.tags["fixed.data.batch_size"] for run in trials] == [str(size)] * 3


@pytest.mark.slow
def test_a_trial_alone_is_measured_too(file: Path) -> None:
    status, said = tuner(file.parent, "train", "job.yaml", "--output", "kept")
    assert status == OK and "images/s" in said, said
    trial = parse_yaml((file.parent / "kept" / "trial.yaml").read_text())
    assert trial["data"]["batch_size"] in (16, 32, 64)
