"""Whole jobs on a real Ray and a real MLflow store."""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from commands import tuner as command
from conftest import experiment, start_job
from disturbances import Disturber, disturbed
from mlflow import MlflowClient
from thread_writers import thread_writers

import tuner
from benchmarks.servers import answers, ray_cluster
from tuner.data.downloads import data_dir
from tuner.errors import UserError
from tuner.jobs.continuation import ResumeOptions, continued_job
from tuner.jobs.driver import run
from tuner.jobs.result import FAILED, OK, WRONG, Result
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.loader import load
from tuner.tracking.record.messages import end_of
from tuner.train.checkpoint import Save
from tuner.train.loop import fit
from tuner.train.trial_config import TrialConfig
from tuner.trials.journal import Journal
from tuner.trials.resume.reading import read_past
from tuner.trials.resume.resumed_job import ResumedJob
from tuner.trials.stopping import StoppingCriteria
from tuner.trials.trial import Trial

EPOCHS = 3

# Two that learn, one whose loss explodes, one that asks for more memory than there is.
JOB = f"""
name: job
objective: val_accuracy
trial:
  data: {{kind: digits, batch_size: 32}}
  model: {{kind: cnn, hidden: 32}}
  optimizer: {{kind: sgd, lr: 0.1, momentum: 0.9}}
  epochs: {EPOCHS}
space:
  optimizer.lr: {{grid: [0.1, 1.0e+9]}}
  model.hidden: {{grid: [32, 268435456]}}
search: {{kind: grid, seed: 7}}
storage: runs
"""

NO_MODEL = "tracking.register=false"
"""For a job of which nobody asks for the model: writing one takes seconds."""


@dataclass
class Job:
    """A finished job and how to look at its record."""

    spec: ExperimentSpec
    result: Result
    client: MlflowClient
    text: str

    @property
    def plan(self) -> list[Any]:
        return self.spec.plan() or []

    @property
    def trial(self) -> TrialConfig:
        assert isinstance(self.spec.trial, TrialConfig)
        return self.spec.trial

    def run_of(self, number: int) -> Any:
        [found] = [r for r in self.runs("trial") if r.data.tags["tuner.trial"] == str(number)]
        return found

    def runs(self, role: str) -> list[Any]:
        experiment = self.client.get_experiment_by_name("job")
        return list(self.client.search_runs([experiment.experiment_id], f"tags.`tuner.role` = '{role}'"))


@pytest.fixture(scope="module")
def job(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    from io import StringIO

    from rich.console import Console

    folder = tmp_path_factory.mktemp("job")
    (folder / "job.yaml").write_text(JOB)
    before, environment = Path.cwd(), dict(os.environ)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.chdir(folder)
    try:
        spec = load("job.yaml")
        text = StringIO()
        result = run(spec, source=Path("job.yaml"), console=Console(file=text, width=200))
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        yield Job(spec, result, MlflowClient(f"sqlite:///{folder}/mlflow.db"), text.getvalue())
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)


@pytest.mark.slow
def test_every_trial_ends_and_only_the_good_ones_complete(job: Job) -> None:
    assert [trial.status for trial in job.result.trials] == ["completed", "failed", "diverged", "failed"]
    assert job.result.status == OK  # trials have failed; the others went on
    assert job.result.winner is job.result.trials[0]
    assert "the loss became" in job.result.trials[2].reason
    assert job.result.record_failure is None


@pytest.mark.slow
def test_the_parent_run_holds_the_answer(job: Job) -> None:
    [parent] = job.runs("parent")
    winner = job.result.winner
    assert winner is not None
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["tuner.failures"].startswith("2 of 4 trials; the first, trial 1: ")
    assert parent.data.metrics["best_val_accuracy"] == winner.best
    assert parent.data.metrics["test_accuracy"] == job.result.test["test_accuracy"]
    assert parent.data.tags["tuner.winner"] == "0"
    artifacts = {a.path for a in job.client.list_artifacts(parent.info.run_id)}
    assert {"experiment.yaml", "leaderboard.csv", "confusion_label.csv", "confusion_label.html"} <= artifacts
    assert {"hardest_label.png", "contact_sheet.html"} <= artifacts
    table = pd.read_csv(job.client.download_artifacts(parent.info.run_id, "leaderboard.csv"))
    assert table["trial"].iloc[0] == 0 and len(table) == 4
    matrix = pd.read_csv(job.client.download_artifacts(parent.info.run_id, "confusion_label.csv"), index_col=0)
    assert matrix.to_numpy().sum() == 360  # every image of the test set, once
    right = matrix.to_numpy().trace() / 360
    assert right == pytest.approx(job.result.test["test_accuracy"])
    classes = pd.read_csv(job.client.download_artifacts(parent.info.run_id, "per_class_label.csv"))
    assert list(classes["support"]) == matrix.to_numpy().sum(axis=1).tolist()
    assert classes["f1"].mean() == pytest.approx(job.result.test["test_f1"])


@pytest.mark.slow
def test_the_recorded_specification_runs_to_the_same_plan(job: Job, tmp_path: Path) -> None:
    [parent] = job.runs("parent")
    again = load(job.client.download_artifacts(parent.info.run_id, "experiment.yaml", str(tmp_path)))
    assert again.plan() == job.plan
    seeds = [job.spec.trial_config(assignment).seed for assignment in job.plan]
    assert [again.trial_config(assignment).seed for assignment in job.plan] == seeds


@pytest.mark.slow
def test_each_trial_is_nested_with_its_parameters_and_all_its_epochs(job: Job) -> None:
    [parent] = job.runs("parent")
    assert len(job.runs("trial")) == 4
    for number, trial in enumerate(job.result.trials):
        record = job.run_of(number)
        assert record.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert float(record.data.params["optimizer.lr"]) == trial.assignment["optimizer.lr"]
        assert record.data.tags["fixed.model.kind"] == "cnn"
        assert record.data.tags["tuner.seed"] == str(trial.config.seed)
        assert record.info.end_time >= record.info.start_time
    best = job.run_of(0)
    for name in job.trial.metrics:
        history = job.client.get_metric_history(best.info.run_id, name)
        assert [metric.step for metric in history] == list(range(1, EPOCHS + 1)), name
    curve = [metric.value for metric in job.client.get_metric_history(best.info.run_id, "val_accuracy")]
    assert best.data.metrics["best_val_accuracy"] == max(curve)
    epochs = [epoch for epoch, value in enumerate(curve, start=1) if value == max(curve)]
    assert best.data.metrics["best_epoch"] == epochs[-1]


@pytest.mark.slow
def test_the_dataset_is_recorded_by_its_true_name_and_size(job: Job) -> None:
    seen = {"training": ("digits-train", 1137), "validation": ("digits-validation", 300)}
    for number, more in ((0, {"testing": ("digits-test", 360)}), (2, {})):  # the first one wins
        inputs = job.run_of(number).inputs.dataset_inputs
        found = {i.tags[0].value: (i.dataset.name, yaml.safe_load(i.dataset.profile)["num_rows"]) for i in inputs}
        assert found == seen | more


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(0, "FINISHED"), (1, "FAILED"), (2, "FAILED"), (3, "FAILED")])
def test_a_run_says_how_its_trial_ended(job: Job, number: int, status: str) -> None:
    assert job.run_of(number).info.status == status
    assert job.run_of(number).data.tags["tuner.status"] == job.result.trials[number].status


@pytest.mark.slow
def test_a_failed_trial_leaves_its_reason_and_traceback(job: Job) -> None:
    record = job.run_of(1)
    assert "memory" in record.data.tags["tuner.reason"]
    traceback = Path(job.client.download_artifacts(record.info.run_id, "traceback.txt")).read_text()
    assert traceback.startswith("Traceback") and "fit" in traceback


@pytest.mark.slow
def test_only_the_winner_is_measured_on_the_test_set(job: Job) -> None:
    measured = {number for number in range(4) if any(n.startswith("test_") for n in job.run_of(number).data.metrics)}
    assert measured == {0}


@pytest.mark.slow
def test_the_checkpoint_is_that_of_the_best_report(job: Job) -> None:
    record = job.run_of(0)
    winner = job.result.winner
    assert winner is not None and winner.checkpoint is not None
    metrics = yaml.safe_load((Path(winner.checkpoint) / "metrics.json").read_text())
    assert metrics["epoch"] == winner.best_epoch
    assert metrics["val_accuracy"] == winner.best
    artifact = Path(job.client.download_artifacts(record.info.run_id, "checkpoint"))
    assert yaml.safe_load((artifact / "metrics.json").read_text()) == metrics


@pytest.mark.slow
def test_a_checkpoint_loads_from_its_folder_and_from_its_run(job: Job) -> None:
    winner = job.result.winner
    assert winner is not None and winner.checkpoint is not None
    images = torch.rand(5, 1, 8, 8)
    from_folder, from_run = tuner.load(winner.checkpoint), tuner.load(job.run_of(0).info.run_id)
    assert not from_folder.training
    with torch.inference_mode():
        assert torch.equal(from_folder(images), from_run(images))
        assert from_folder(images).shape == (5, 10)


@pytest.mark.slow
def test_alone_gives_the_numbers_that_ray_gave_to_the_last_bit(job: Job) -> None:
    config = job.spec.trial_config(job.plan[0])
    assert isinstance(config, TrialConfig)
    alone: list[dict[str, Any]] = []
    fit(config, job.spec.objective, lambda metrics, save: alone.append(metrics))
    record = job.run_of(0)
    for name in ("train_loss", "val_loss", "val_accuracy", "val_f1"):
        curve = [metric.value for metric in job.client.get_metric_history(record.info.run_id, name)]
        assert [metrics[name] for metrics in alone] == curve, name


@pytest.mark.slow
def test_a_log_gets_a_line_a_trial(job: Job) -> None:
    assert [line[:5] for line in job.text.splitlines() if line.startswith("[")] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert "\x1b" not in job.text


@pytest.mark.slow
def test_the_journal_tells_what_the_driver_knew(job: Job) -> None:
    past = read_past(job.spec, job.result.folder, Path(job.result.folder).name)
    assert past.is_finished and past.head.parent_run == job.result.links.parent_run_id
    for read, trial in zip(past.trials, job.result.trials, strict=True):
        for name in ("assignment", "config", "status", "reason", "traceback", "epoch", "series", "checkpoint"):
            assert getattr(read, name) == getattr(trial, name), name
        assert (read.best, read.best_report, read.best_assignment) == (
            trial.best,
            trial.best_report,
            trial.best_assignment,
        )
        assert read.seconds == pytest.approx(trial.seconds, abs=0.5)


@pytest.mark.slow
def test_a_job_that_is_through_is_not_gone_on_with(job: Job) -> None:
    with pytest.raises(UserError, match="has finished its 4 trials"):
        run(job.spec, resume=True)
    with pytest.raises(UserError, match="the space has no more than the 4 trials"):
        run(job.spec, extend=2)


@pytest.mark.slow
@pytest.mark.usefixtures("in_one_process", "thread_writer", "store_made")
def test_a_job_whose_driver_was_killed_in_its_last_words_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    spec = experiment(search={"kind": "random", "trials": 1}, storage=str(tmp_path / "runs"))
    first = run(spec)
    [journal] = tmp_path.glob("runs/small/*/journal.jsonl")
    *before, last = journal.read_text().splitlines(keepends=True)
    assert '"recorded"' in last
    journal.write_text("".join(before))
    again = run(spec, resume=True)
    assert (again.status, again.test) == (OK, first.test) and first.test
    told = journal.read_text().removeprefix("".join(before))
    assert '"recorded"' in told and '"started"' not in told
    assert MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(again.links.parent_run_id).info.status == "FINISHED"
    with pytest.raises(UserError, match="has finished its 1 trial"):
        run(spec, resume=True)


@pytest.fixture(scope="module")
def several(job: Job) -> Job:
    """A search that learns, for two objectives and with a constraint that only training decides."""
    from io import StringIO

    from rich.console import Console

    spec = experiment(
        objective=["val_accuracy", "parameters"],
        trial=job.trial.model_copy(update={"epochs": 1}),
        space={"model.hidden": {"int": [8, 64]}, "optimizer.lr": {"loguniform": [0.01, 0.3]}},
        constraints=["val_accuracy >= 0.01", "latency_ms * 0 >= model.hidden - 63.5"],  # the widest one misses it
        search={"kind": "bayesian", "trials": 4, "initial": [{"model.hidden": 64}, {"model.hidden": 8}]},
        storage="runs",
    )
    text = StringIO()
    with thread_writers():
        result = run(spec, console=Console(file=text, width=200))
    return Job(spec, result, job.client, text.getvalue())


class TestSeveralObjectives:
    @pytest.mark.slow
    def test_the_front_is_recorded_drawn_and_shown(self, several: Job) -> None:
        result = several.result
        assert result.status == OK and len(result.trials) == 4
        assert "TPE (tpe) is the sampler" in several.text
        experiment_id = several.client.get_experiment_by_name("small").experiment_id
        runs = several.client.search_runs([experiment_id])
        parent = several.client.get_run(result.links.parent_run_id)
        artifacts = {artifact.path for artifact in several.client.list_artifacts(parent.info.run_id)}
        assert {"pareto.html", "leaderboard.csv"} <= artifacts
        table = pd.read_csv(several.client.download_artifacts(parent.info.run_id, "leaderboard.csv"))
        on_front = {int(number) for number in table[table["pareto"]]["trial"]}
        tagged = {int(run.data.tags["tuner.trial"]) for run in runs if run.data.tags.get("pareto") == "true"}
        assert on_front == tagged and 1 in on_front  # no other is as small
        assert result.winner is not None and result.winner.number in on_front
        assert parent.data.metrics["best_parameters"] == result.winner.best_report["parameters"]
        assert parent.data.metrics["trials_completed"] == 4

    @pytest.mark.slow
    def test_who_misses_a_constraint_wins_nothing(self, several: Job) -> None:
        widest = several.result.trials[0]
        assert widest.assignment["model.hidden"] == 64 and not widest.is_feasible
        assert [name for name, missed in widest.violations.items() if missed > 0] == [several.spec.constraints[1]]
        assert several.result.winner is not widest


def _past(spec: ExperimentSpec, extend: int) -> tuple[ExperimentSpec, ResumedJob]:
    opening = continued_job(spec, ResumeOptions(resume=True, extend=extend))
    assert opening.past is not None
    return opening.spec, opening.past


class TestGoingOn:
    """Which job goes on, and with how many trials; what it does then is told in test_resume.py."""

    def past(self, folder: Path, finished: bool = True, **parts: Any) -> ExperimentSpec:
        """An experiment whose last job has a journal."""
        spec = experiment(storage=str(folder), **parts)
        journal = Journal(f"{folder}/small/20260101-000000-abcd")
        trials = spec.count() if spec.budget.trials is None else min(spec.count(), spec.budget.trials)
        journal.opened(spec, parent_run="", trials=trials)
        if finished:
            journal.closed(is_finished=True)
            journal.recorded(end_of("FINISHED", {"status": "completed"}))
        return spec

    def test_an_interrupted_job_has_the_trials_that_it_had(self, tmp_path: Path) -> None:
        spec, past = _past(self.past(tmp_path, finished=False), 0)
        assert (spec.count(), past.job, past.trials) == (4, "20260101-000000-abcd", [])

    @pytest.mark.parametrize("finished", [False, True])
    def test_extend_adds_to_what_it_had(self, finished: bool, tmp_path: Path) -> None:
        assert _past(self.past(tmp_path, finished), 3)[0].count() == 7

    def test_what_was_added_before_stays(self, tmp_path: Path) -> None:
        self.past(tmp_path, finished=False)
        self.past(tmp_path, finished=False, search={"kind": "random", "trials": 9})
        assert _past(experiment(storage=str(tmp_path)), 0)[0].count() == 9
        assert _past(experiment(storage=str(tmp_path)), 2)[0].count() == 11

    def test_a_file_that_asks_for_more_now_gets_them(self, tmp_path: Path) -> None:
        self.past(tmp_path)
        more = experiment(storage=str(tmp_path), search={"kind": "random", "trials": 6})
        assert _past(more, 0)[0].count() == 6

    @pytest.mark.parametrize("search", [{"kind": "random", "trials": 4}, {"kind": "bayesian", "trials": 4}])
    def test_a_job_that_is_through_is_refused(self, search: dict[str, Any], tmp_path: Path) -> None:
        spec = self.past(tmp_path, search=search)
        with pytest.raises(UserError, match="has finished its"):
            _past(spec, 0)

    def test_a_space_that_is_exhausted_has_no_more(self, tmp_path: Path) -> None:
        spec = self.past(
            tmp_path, space={"optimizer.lr": {"choice": [0.1, 0.2]}}, search={"kind": "random", "trials": 9}
        )
        assert spec.count() == 2
        with pytest.raises(UserError, match="has finished its"):
            _past(spec, 0)
        with pytest.raises(UserError, match="the space has no more than the 2 trials"):
            _past(spec, 5)

    def test_a_budget_that_was_spent_may_be_raised(self, tmp_path: Path) -> None:
        space = {"optimizer.lr": {"grid": [0.1, 0.2, 0.3]}}
        spec = self.past(tmp_path, space=space, search={"kind": "grid"}, budget={"trials": 2})
        with pytest.raises(UserError, match="has finished its"):
            _past(spec, 0)
        raised = experiment(storage=str(tmp_path), space=space, search={"kind": "grid"})
        assert _past(raised, 0)[0].count() == 3

    def test_a_budget_that_allows_no_more_is_told(self, tmp_path: Path) -> None:
        spec = self.past(tmp_path, budget={"trials": 2})
        with pytest.raises(UserError, match=r"budget\.trials allows no more than the 2 trials"):
            _past(spec, 5)


def _runs(folder: Path, name: str) -> list[Any]:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name(name)
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray", "thread_writer", "store_made")
def test_a_worker_that_is_killed_fails_its_trial_and_the_rest_go_on(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB.replace(f"epochs: {EPOCHS}", "epochs: 60"))
    two = ["space.model.hidden={grid: [32]}", "space.optimizer.lr={grid: [0.01, 0.02]}"]
    disturber = Disturber(tmp_path)

    def disturb() -> None:
        disturber.wait_for_reports()
        disturber.kill()

    status, output = disturbed(disturb, tmp_path, "run", "job.yaml", *two, "retry.lost=0", NO_MODEL)
    assert status == OK, output
    assert re.search(r"failed      1 of 2 trials; trial [01]: the worker was lost", output), output
    trials = [record for record in _runs(tmp_path, "job") if record.data.tags["tuner.role"] == "trial"]
    assert sorted(record.info.status for record in trials) == ["FAILED", "FINISHED"]
    [failed] = [record for record in trials if record.info.status == "FAILED"]
    assert "the worker was lost" in failed.data.tags["tuner.reason"]
    assert "the worker was lost" in output


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray", "thread_writer", "store_made")
def test_a_trial_whose_process_is_killed_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    epochs = 40
    (tmp_path / "job.yaml").write_text(JOB.replace(f"epochs: {EPOCHS}", f"epochs: {epochs}"))
    two = ["space.model.hidden={grid: [32]}", "space.optimizer.lr={grid: [0.01, 0.02]}"]
    disturber, left = Disturber(tmp_path), list[Path]()

    def disturb() -> None:
        disturber.wait_for_reports()
        left.append(disturber.kill_in_the_middle_of_a_checkpoint(Path(tempfile.gettempdir())))
        for _ in range(2):  # at whatever moment, also one right behind the other
            disturber.kill()
            time.sleep(0.5)

    status, output = disturbed(disturb, tmp_path, "run", "job.yaml", *two)
    assert status == OK, output
    trials = [record for record in _runs(tmp_path, "job") if record.data.tags["tuner.role"] == "trial"]
    assert [record.info.status for record in trials] == ["FINISHED"] * 2
    assert "lost its worker and resumes from epoch" in output
    lost = sum(int(record.data.tags.get("tuner.lost", 0)) for record in trials)
    assert 1 <= lost <= 3  # a worker may have been through with its trial
    assert not left[0].exists()
    spec = load(tmp_path / "job.yaml", two)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    for number, assignment in enumerate(spec.plan() or []):
        [record] = [each for each in trials if each.data.tags["tuner.trial"] == str(number)]
        curve = client.get_metric_history(record.info.run_id, "val_loss")
        assert [point.step for point in curve] == list(range(1, epochs + 1))  # each once
        alone = _trained_alone(spec, assignment, tmp_path / f"alone-{number}")
        killed = Path(client.download_artifacts(record.info.run_id, "checkpoint"))
        weights, expected = (torch.load(place / "model.pt", weights_only=True) for place in (killed, alone))
        assert weights.keys() == expected.keys()
        for name, tensor in weights.items():
            assert torch.equal(tensor, expected[name]), name


def _trained_alone(spec: ExperimentSpec, assignment: Any, folder: Path) -> Path:
    """The best checkpoint of a trial that nothing has happened to."""
    config, best = spec.trial_config(assignment), -1.0
    assert isinstance(config, TrialConfig)

    def report(metrics: dict[str, Any], save: Save) -> None:
        nonlocal best
        if metrics["val_accuracy"] >= best:
            best = metrics["val_accuracy"]
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            save(folder)

    fit(config, spec.objective, report, device=torch.device("cpu"))
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray", "thread_writer", "store_made")
def test_a_population_that_loses_a_process_comes_to_its_end(tmp_path: Path) -> None:
    epochs = 30  # long enough to lose two
    job = JOB.replace(f"epochs: {EPOCHS}", f"epochs: {epochs}").replace(
        "{kind: grid, seed: 7}", "{kind: random, trials: 4}"
    )
    space = ["space.model.hidden={choice: [32]}", "space.optimizer.lr={loguniform: [1e-4, 0.1]}"]
    (tmp_path / "job.yaml").write_text(job)
    disturber = Disturber(tmp_path)

    def disturb() -> None:
        disturber.wait_for_reports()
        for _ in range(2):
            disturber.kill()
            time.sleep(2)

    pbt = "scheduler={kind: pbt, interval: 3}"
    status, output = disturbed(disturb, tmp_path, "run", "job.yaml", *space, pbt, NO_MODEL)
    assert status == OK, output
    trials = [record for record in _runs(tmp_path, "job") if record.data.tags["tuner.role"] == "trial"]
    assert [record.info.status for record in trials] == ["FINISHED"] * 4
    assert sum(int(record.data.tags.get("tuner.lost", 0)) for record in trials) >= 1
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    for record in trials:
        curve = client.get_metric_history(record.info.run_id, "val_loss")
        assert [point.step for point in curve] == list(range(1, epochs + 1))  # each once


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray", "thread_writer", "store_made")
def test_a_trial_that_hangs_is_ended_and_marked_and_the_rest_go_on(tmp_path: Path) -> None:
    (tmp_path / "own_hang.py").write_text(
        "import time\n\nfrom ray import tune\n\n\n"
        "def train(config):\n"
        "    for step in range(3):\n"
        '        tune.report({"score": step + config["x"]})\n'
        '        time.sleep(3600 if config["x"] == 1 and step == 1 else 0.1)\n'
    )
    (tmp_path / "job.yaml").write_text(
        "name: hangs\nobjective: {metric: score, mode: max}\ntrial: {target: 'own_hang:train', config: {x: 0}}\n"
        "space: {config.x: {grid: [0, 1, 2]}}\nsearch: {kind: grid}\ntrial_timeout: 10s\n"
    )
    status, output = command(tmp_path, "run", "job.yaml")
    assert status == OK and "Traceback" not in output, output
    trials = [record for record in _runs(tmp_path, "hangs") if record.data.tags["tuner.role"] == "trial"]
    told = {record.data.params["config.x"]: record for record in trials}
    assert {x: record.info.status for x, record in told.items()} == {"0": "FINISHED", "1": "FAILED", "2": "FINISHED"}
    assert told["1"].data.tags["tuner.reason"] == "it hung: no report for 10s"
    assert told["1"].data.metrics["score"] == 2  # what it had reported is there


@pytest.mark.slow
@pytest.mark.server
def test_a_cluster_is_used_when_it_is_named_and_only_then(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB.replace(f"epochs: {EPOCHS}", "epochs: 1"))
    arguments = ["job.yaml", "space.model.hidden={grid: [32]}", "space.optimizer.lr={grid: [0.01, 0.02]}", NO_MODEL]
    with ray_cluster(2) as environment:
        address = environment["RAY_ADDRESS"]
        token = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}
        outside = start_job(tmp_path, *arguments, "--address", address, "resources.cpu=3", **token)
        output, _ = outside.communicate(timeout=600)
        assert outside.returncode == WRONG, output
        assert "a trial asks for 3 CPU cores, but there are 2" in output
        assert not (tmp_path / "mlflow.db").exists()
        named = start_job(tmp_path, *arguments, "resources.cpu=2", **environment)
        output, _ = named.communicate(timeout=600)
        assert named.returncode == OK, output
        assert "test_accuracy" in output
        assert answers(int(address.rpartition(":")[2]))  # the cluster is not ours to end


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray", "thread_writer", "store_made")
def test_timeout_ends_a_job_and_keeps_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Soon(StoppingCriteria):
        """Its time is up two seconds after the first report: its start takes long on a busy machine."""

        def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
            super().trial_reported(trial, report)
            self._deadline = min(self._deadline or 0, time.time() + 2)

    monkeypatch.setattr("tuner.jobs.job.StoppingCriteria", Soon)
    (tmp_path / "job.yaml").write_text(JOB.replace(f"epochs: {EPOCHS}", "epochs: 100000"))
    one = ["space.model.hidden={grid: [32]}", "space.optimizer.lr={grid: [0.05]}"]
    status, output = command(tmp_path, "run", "job.yaml", *one, "timeout=1h")
    assert status == OK, output
    assert "timeout" in output and "test_accuracy" in output
    [trial] = [record for record in _runs(tmp_path, "job") if record.data.tags["tuner.role"] == "trial"]
    assert trial.info.status == "KILLED"
    assert trial.data.metrics["best_val_accuracy"] > 0


@pytest.mark.slow
@pytest.mark.skipif(not (data_dir() / "MNIST").is_dir(), reason="needs MNIST's files: set TUNER_DATA_DIR")
@pytest.mark.usefixtures("store_made")
def test_workers_find_a_data_folder_that_is_relative(tmp_path: Path) -> None:
    text = JOB.replace("kind: digits", "kind: mnist, limit: 200").replace("268435456", "16")
    (tmp_path / "job.yaml").write_text(text.replace("1.0e+9", "0.01").replace(f"epochs: {EPOCHS}", "epochs: 1"))
    (tmp_path / "data").symlink_to(data_dir())
    one = ["space.model.hidden={grid: [16]}", "space.optimizer.lr={grid: [0.1]}"]
    process = start_job(tmp_path, "job.yaml", *one, NO_MODEL, TUNER_DATA_DIR="data")
    try:
        output, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == OK, output


@pytest.mark.slow
@pytest.mark.usefixtures("in_one_process", "thread_writer", "store_made")
def test_no_data_and_no_network_falls_back_aloud(tmp_path: Path) -> None:
    text = JOB.replace("kind: digits", "kind: mnist, offline: digits, limit: 200").replace("268435456", "16")
    (tmp_path / "job.yaml").write_text(text.replace("1.0e+9", "0.01").replace(f"epochs: {EPOCHS}", "epochs: 1"))
    # A proxy that is not there: no network, wherever this runs.
    nowhere = {"TUNER_DATA_DIR": str(tmp_path / "data"), "no_proxy": ""}
    nowhere |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    # Storage as a URI, as on a cluster.
    status, output = command(tmp_path, "run", "job.yaml", f"storage=file://{tmp_path}/store", **nowhere)
    assert status == OK, output
    assert "scikit-learn's digits instead" in output
    trials = [record for record in _runs(tmp_path, "job") if record.data.tags["tuner.role"] == "trial"]
    assert len(trials) == 4
    assert all("digits-train" in {each.dataset.name for each in r.inputs.dataset_inputs} for r in trials)
    assert {r.data.tags["fixed.data.kind"] for r in trials} == {"digits"}
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert all(client.list_artifacts(r.info.run_id, "checkpoint") for r in trials)
    assert f"file://{tmp_path}/store/job/" in output


@pytest.mark.slow
@pytest.mark.usefixtures("in_one_process", "thread_writer", "store_made")
def test_a_job_of_which_too_many_trials_fail_ends_as_failed_and_goes_on_with_a_higher_limit(tmp_path: Path) -> None:
    (tmp_path / "own_frail.py").write_text(
        "from ray import tune\n\ndef train(config):\n"
        "    if config['x'] % 2:\n        raise ValueError('odd')\n"
        "    tune.report({'score': config['x']})\n"
    )
    (tmp_path / "job.yaml").write_text(
        "name: frail\nobjective: {metric: score, mode: max}\ntrial: {target: 'own_frail:train', config: {x: 0}}\n"
        "space: {config.x: {grid: [0, 1, 2, 3, 4, 5, 6, 7]}}\nsearch: {kind: grid}\n"
        "fail_after: {trials: 2}\n"
    )

    def parent() -> Any:
        [record] = [record for record in _runs(tmp_path, "frail") if record.data.tags["tuner.role"] == "parent"]
        return record

    status, output = command(tmp_path, "run", "job.yaml")
    assert status == FAILED, output
    why = "2 trials failed, and fail_after.trials is 2; the last one failed with ValueError: odd"
    assert f"ended early: {why}" in output
    assert "failed      2 of 4 trials; the first, trial 1: ValueError: odd" in output
    assert (parent().info.status, parent().data.tags["tuner.ended_early"]) == ("FAILED", why)
    status, output = command(tmp_path, "run", "job.yaml", "--resume")
    assert (status, "fail_after: 2 trials failed, and fail_after.trials is 2" in output) == (WRONG, True), output
    status, output = command(tmp_path, "run", "job.yaml", "--resume", "fail_after.trials=9")
    assert status == OK and "failed      4 of 8 trials" in output, output
    assert parent().info.status == "FINISHED" and "tuner.ended_early" not in parent().data.tags
