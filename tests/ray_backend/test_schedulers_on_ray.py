"""Schedulers and the ends of jobs, on a real Ray and a real MLflow store. What needs no Ray: test_schedulers.py."""

import io
import json
import math
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
from mlflow import MlflowClient
from rich.console import Console
from thread_writers import thread_writers

from tuner.cli.printing.summary import print_result
from tuner.jobs.driver import run
from tuner.jobs.result import FAILED, OK, Result
from tuner.ray_backend.cluster import connection
from tuner.ray_backend.tune_internals import Controller
from tuner.spec.loader import load
from tuner.train.loop import fit
from tuner.train.trial_config import TrialConfig
from tuner.trials.generator import TrialGenerator
from tuner.trials.stopping import StoppingCriteria
from tuner.trials.trial import Trial

pytestmark = pytest.mark.slow

EPOCHS = 9

# Half of it learns nothing: there is something to end early.
TRAINING = f"""
name: job
objective: val_accuracy
trial:
  data: {{kind: digits, batch_size: 64, limit: 300}}
  model: {{kind: cnn, width1: 4, width2: 8, hidden: 16}}
  optimizer: {{kind: sgd, lr: 0.1, momentum: 0.9}}
  epochs: {EPOCHS}
space:
  optimizer.lr: {{loguniform: [1.0e-5, 0.3]}}
search: {{kind: random, trials: 8, seed: 1}}
tracking: {{register: false}}
"""

POPULATION = TRAINING.replace(f"epochs: {EPOCHS}", "epochs: 5").replace("trials: 8", "trials: 5")

# A function of one's own knows before it begins how good it will be.
CURVES = """
name: job
objective: {metric: score, mode: max}
trial: {target: "curves:curve", config: {reports: 8, height: 0}}
space:
  config.height: {grid: [8, 7, 6, 5, 4, 3, 2, 1]}
search: {kind: grid}
"""

CURVES_PY = """
import itertools
import os
import tempfile
import time
from pathlib import Path

from ray import tune


def curve(config):
    checkpoint = tune.get_checkpoint()
    first = int((Path(checkpoint.path) / "step").read_text()) if checkpoint else 0
    for step in itertools.count(first + 1) if config["reports"] is None else range(first + 1, config["reports"] + 1):
        time.sleep(0.02)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "step").write_text(str(step))
            tune.report({"score": config["height"] * step}, checkpoint=tune.Checkpoint.from_directory(folder))


def together(config):
    Path(f"begun-{os.getpid()}").touch()
    while len(list(Path().glob("begun-*"))) < 2:  # which of two workers is ready first makes no difference then
        time.sleep(0.01)
    curve(config)


def now_and_then(config):
    checkpoint = tune.get_checkpoint()
    first = int((Path(checkpoint.path) / "step").read_text()) if checkpoint else 0
    for step in range(first + 1, 9):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "step").write_text(str(step))
            told = {"other": step} if step % 2 else {"score": config["height"] * step}
            tune.report(told, checkpoint=tune.Checkpoint.from_directory(folder))


def some_never(config):
    if config["height"] < 5:
        return now_and_then(config)
    for step in range(8):
        tune.report({"other": step})


def fragile(config):
    checkpoint = tune.get_checkpoint()
    first = int((Path(checkpoint.path) / "step").read_text()) if checkpoint else 0
    if config["height"] == 8 and first == 2:
        time.sleep(2)
        raise RuntimeError("the best fails")
    curve(config)


def late(config):
    for step in range(1, 9):
        tune.report({"score": config["height"] if step == 8 else 0})


def doomed(config):
    if config["height"] == 8 and not tune.get_checkpoint():
        time.sleep(2)  # the others have come to where they wait for it
        raise RuntimeError("the best fails")
    curve(config)


def logging_itself(config):
    import mlflow

    mlflow.start_run(run_name=f"mine {config['height']}")
    mlflow.log_metric("own", config["height"])
    with mlflow.start_run(run_name="inner", nested=True):
        mlflow.log_param("p", 1)
    tune.report({"score": float("inf") if config["height"] == 2 else 1.0})
    if config["height"] == 3:
        raise RuntimeError("the third fails")
    if config["height"] == 4:
        mlflow.end_run()


def unsound(config):
    checkpoint = tune.get_checkpoint()
    first = int((Path(checkpoint.path) / "step").read_text()) if checkpoint else 0
    for step in range(first + 1, 9):
        score = {7: float("nan"), 8: float("inf")}.get(config["height"], config["height"] * step)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "step").write_text(str(step))
            tune.report({"score": score, "other": -score}, checkpoint=tune.Checkpoint.from_directory(folder))


def broken(config):
    raise RuntimeError(f"nothing works at {config['height']}")
"""


@dataclass
class Job:
    """A finished job and how to look at it from all sides."""

    result: Result
    generator: TrialGenerator
    client: MlflowClient
    text: str

    @property
    def trials(self) -> list[Trial]:
        return list(self.result.trials)

    @property
    def parent(self) -> Any:
        return self.client.get_run(self.result.links.parent_run_id)

    @property
    def runs(self) -> dict[int, Any]:
        below = f"tags.`mlflow.parentRunId` = '{self.result.links.parent_run_id}'"
        found = self.client.search_runs([self.result.links.experiment_id], below)
        return {int(record.data.tags["tuner.trial"]): record for record in found}

    def history(self, number: int, metric: str) -> dict[int, float]:
        found = self.client.get_metric_history(self.runs[number].info.run_id, metric)
        assert len({m.step for m in found}) == len(found), f"a step of {metric} of trial {number} is there twice"
        return {m.step: m.value for m in sorted(found, key=lambda m: m.step)}

    @property
    def journal(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (Path(self.result.folder) / "journal.jsonl").read_text().splitlines()]

    def told(self, number: int) -> Any:
        """What Optuna knows of a trial."""
        searcher: Any = self.generator._searcher
        return searcher._study.trials[searcher._asked[number].number]


Play = Callable[..., Job]
"""Runs an experiment, given as YAML and overrides."""


class Player:
    """Runs jobs whose code lies in one folder, and their store beside it; each has a folder of its own."""

    def __init__(self, code: Path, factory: pytest.TempPathFactory, cpu: float) -> None:
        self._code, self._factory, self._cpu = code, factory, cpu

    def __call__(self, text: str, *overrides: str) -> Job:
        supplies: list[TrialGenerator] = []

        class Seen(TrialGenerator):
            """The job's own, within reach."""

            def __init__(self, *arguments: Any, **named: Any) -> None:
                super().__init__(*arguments, **named)
                supplies.append(self)

        folder, file = self._factory.mktemp("job"), self._code / "job.yaml"
        file.write_text(text)
        uri = f"sqlite:///{self._code}/mlflow.db"
        given = [f"storage={folder}", f"tracking.uri={uri}", f"resources.cpu={self._cpu}", *overrides]
        out = io.StringIO()
        console = Console(file=out, width=300)
        with pytest.MonkeyPatch.context() as patch, thread_writers():
            patch.setattr("tuner.jobs.driver.TrialGenerator", Seen)
            result = run(load(file, given), source=file, console=console)
        print_result(console, result)
        assert result.record_failure is None
        return Job(result, supplies[-1], MlflowClient(uri), out.getvalue())


@pytest.fixture(scope="module")
def code(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    shutil.copy(empty_store, folder / "mlflow.db")
    (folder / "curves.py").write_text(CURVES_PY)
    return folder


@pytest.fixture(scope="module")
def play(one_ray: None, code: Path, tmp_path_factory: pytest.TempPathFactory) -> Play:
    """Jobs on one Ray, with two slots whatever the machine has."""
    return Player(code, tmp_path_factory, connection.connect(None).now[0].cpu / 2)


@pytest.fixture
def play_here(in_one_process: None, code: Path, tmp_path_factory: pytest.TempPathFactory) -> Play:
    """Jobs in this process, one trial after another."""
    return Player(code, tmp_path_factory, 1)


def _check_record(job: Job) -> None:
    """Our trials, MLflow and the journal tell the same of every trial, and nothing goes on."""
    runs = job.runs
    assert sorted(runs) == [trial.number for trial in job.trials]
    ended = {event["trial"]: event for event in job.journal if event["event"] == "ended"}
    for trial in job.trials:
        record = runs[trial.number]
        assert record.info.status != "RUNNING" and record.info.end_time is not None
        assert record.data.tags["tuner.status"] == trial.status == ended[trial.number]["status"]
        assert record.data.tags.get("tuner.reason", "") == trial.reason == ended[trial.number]["reason"]
        if trial.epoch:
            assert job.history(trial.number, job.result.spec.objective.metric) == trial.series
            assert list(trial.series) == list(range(1, trial.epoch + 1))
    assert job.parent.info.status == {OK: "FINISHED", FAILED: "FAILED"}[job.result.status]


def _check_pruning(job: Job, kind: str, epochs: int) -> None:
    """Who came to the last epoch is completed, and who did not was ended by the scheduler, which says so."""
    _check_record(job)
    assert job.result.status == OK
    assert {trial.status for trial in job.trials} == {"completed", "pruned"}
    for trial in job.trials:
        if trial.status == "completed":
            assert (trial.epoch, trial.reason) == (epochs, "")
        else:
            assert trial.epoch < epochs
            assert trial.reason == f"{kind} after epoch {trial.epoch}"
            assert job.runs[trial.number].info.status == "FINISHED"
    pruned = sum(trial.status == "pruned" for trial in job.trials)
    assert job.parent.data.metrics["trials_pruned"] == pruned
    assert sum(trial.epoch for trial in job.trials) < len(job.trials) * epochs  # what FIFO would have taken


def _check_told(job: Job) -> None:
    """What came of each trial has come to the sampler, with all that was reported on the way."""
    for trial in job.trials:
        told = job.told(trial.number)
        assert told.state.name == {"completed": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}[trial.status]
        assert told.intermediate_values == trial.series
        if trial.status == "completed":
            assert told.values == [trial.best]


def test_asha_prunes_and_the_sampler_learns_of_it(play: Play) -> None:
    job = play(TRAINING, "search={kind: bayesian, trials: 8, seed: 1}", "scheduler={kind: asha, grace: 1}")
    _check_pruning(job, "asha", EPOCHS)
    _check_told(job)
    assert {trial.epoch for trial in job.trials} <= {1, 3, EPOCHS}  # its rungs
    assert job.result.winner is not None
    assert job.result.winner.best == max(trial.best or 0 for trial in job.trials)
    assert job.parent.data.metrics["test_accuracy"] == job.result.test["test_accuracy"]


def test_hyperband_prunes_in_training(play: Play) -> None:
    job = play(TRAINING, "scheduler={kind: hyperband}")
    _check_pruning(job, "hyperband", EPOCHS)
    assert job.result.winner is not None
    assert job.result.winner.best == max(trial.best or 0 for trial in job.trials)


def test_median_prunes_who_is_below_the_others(play: Play) -> None:
    job = play(CURVES, "trial.target=curves:together", "scheduler={kind: median, grace: 2, samples: 2}")
    _check_pruning(job, "median", 8)
    assert [trial.epoch for trial in job.trials] == [8, 8, 2, 2, 2, 2, 2, 2]  # the highest come first


def test_who_is_ended_at_the_last_rung_of_asha_is_completed(play_here: Play) -> None:
    """A function's length is not known, but `longest` says what it is; 8 is a rung, where the others are ended."""
    job = play_here(CURVES, "trial.target=curves:late", "scheduler={kind: asha, grace: 1, reduction: 2, longest: 8}")
    _check_record(job)
    assert [(trial.status, trial.epoch) for trial in job.trials] == [("completed", 8)] * 8


@pytest.fixture(scope="module", params=["pbt", "pb2"])
def populations(play: Play, request: pytest.FixtureRequest) -> tuple[Job, Job]:
    """The same population twice. It is larger than the number of slots."""
    overrides = [f"scheduler={{kind: {request.param}, interval: 1}}", "space.optimizer.momentum={uniform: [0.5, 0.95]}"]
    return play(POPULATION, *overrides), play(POPULATION, *overrides)


def test_a_population_comes_to_its_last_epoch(populations: tuple[Job, Job]) -> None:
    job, _ = populations
    _check_record(job)
    assert job.result.status == OK
    assert [(trial.status, trial.epoch) for trial in job.trials] == [("completed", 5)] * 5
    assert sum(len(trial.mutations) for trial in job.trials) >= 4  # one at each of the first four epochs


def test_the_history_of_a_population_is_whole_and_true(populations: tuple[Job, Job]) -> None:
    job, _ = populations
    table = pd.read_csv(job.client.download_artifacts(job.parent.info.run_id, "mutations.csv"))
    rows = table.to_dict("records")
    for trial in job.trials:
        run_id = job.runs[trial.number].info.run_id
        rates = job.history(trial.number, "optimizer.lr")
        assert rates == pytest.approx(job.history(trial.number, "learning_rate"), rel=1e-12)
        momenta = job.history(trial.number, "optimizer.momentum")
        assert list(rates) == list(momenta) == list(range(1, 6))
        assert job.runs[trial.number].data.tags.get("tuner.mutations", "0") == str(len(trial.mutations))
        mutations = []
        if trial.mutations:
            mutations = json.loads(Path(job.client.download_artifacts(run_id, "mutations.json")).read_text())
        now = {"optimizer.lr": rates[1], "optimizer.momentum": momenta[1]}
        assert float(job.runs[trial.number].data.params["optimizer.lr"]) == now["optimizer.lr"]
        for mutation in mutations:
            assert mutation["before"] == pytest.approx(now)
            assert mutation["parent"] != trial.number
            now = mutation["after"]
            after = mutation["epoch"] + 1
            assert now == pytest.approx({"optimizer.lr": rates[after], "optimizer.momentum": momenta[after]})
        changed = [e for e in range(2, 6) if (rates[e], momenta[e]) != (rates[e - 1], momenta[e - 1])]
        assert changed == [mutation["epoch"] + 1 for mutation in mutations]
        written = [
            (m["epoch"], m["parent"], key, before, m["after"][key])
            for m in mutations
            for key, before in m["before"].items()
        ]
        told = [
            (r["epoch"], r["parent"], r["key"], r["before"], r["after"]) for r in rows if r["trial"] == trial.number
        ]
        assert sorted(told) == sorted(written)
    assert len(rows) == 2 * sum(len(trial.mutations) for trial in job.trials)


def test_a_copy_goes_on_from_its_parents_weights(populations: tuple[Job, Job], tmp_path: Path) -> None:
    job, _ = populations
    first = min((m for t in job.trials for m in t.mutations), key=lambda mutation: mutation.epoch)
    copy = next(t for t in job.trials if first in t.mutations)
    parent = job.trials[first.parent]
    assert not [m for m in parent.mutations if m.epoch < first.epoch]
    spec = job.result.spec
    curve: dict[int, dict[str, Any]] = {}

    def report(metrics: dict[str, Any], save: Callable[[Path], None]) -> None:
        curve[metrics["epoch"]] = metrics
        folder = tmp_path / str(metrics["epoch"])
        folder.mkdir(exist_ok=True)
        save(folder)

    origin = json.loads(json.dumps(parent.mutations[0].before if parent.mutations else parent.assignment))
    whose = spec.trial_config(origin).model_copy(update={"seed": parent.config.seed, "epochs": first.epoch})
    assert isinstance(whose, TrialConfig)
    fit(whose, spec.objective, report)
    assert curve[first.epoch]["train_loss"] == job.history(parent.number, "train_loss")[first.epoch]
    whose = spec.trial_config(first.after).model_copy(update={"seed": copy.config.seed, "epochs": first.epoch + 1})
    assert isinstance(whose, TrialConfig)
    fit(whose, spec.objective, report, resume=tmp_path / str(first.epoch))
    for name in ("train_loss", "val_loss", "val_accuracy"):
        assert curve[first.epoch + 1][name] == job.history(copy.number, name)[first.epoch + 1], name


def test_a_population_has_the_same_history_again(populations: tuple[Job, Job]) -> None:
    one, other = populations
    assert [trial.mutations for trial in one.trials] == [trial.mutations for trial in other.trials]
    assert [trial.series for trial in one.trials] == [trial.series for trial in other.trials]


def test_a_population_leaves_one_checkpoint_a_trial(populations: tuple[Job, Job]) -> None:
    job, _ = populations
    left = sorted(str(path) for path in Path(job.result.folder).rglob("checkpoint_*"))
    assert left == sorted(str(trial.checkpoint) for trial in job.trials)
    for trial in job.trials:
        metrics = json.loads((Path(str(trial.checkpoint)) / "metrics.json").read_text())
        assert (metrics["epoch"], metrics["val_accuracy"]) == (trial.best_epoch, trial.best)


@pytest.mark.parametrize(
    ("target", "scheduler", "heights"),
    [
        # All three wait for each other at the only rung, behind which nothing comes.
        ("doomed", "{kind: hyperband, longest: 8}", [8, 7, 6]),
        # The third bracket has six trials, and rungs at 2, 4 and 8: who fails has come through the first of them.
        (
            "fragile",
            "{kind: hyperband, longest: 8, reduction: 2}",
            [1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 8, 3, 4, 5, 6, 7],
        ),
    ],
)
def test_a_bracket_goes_on_without_the_one_that_it_waited_for(
    play: Play, target: str, scheduler: str, heights: list[float]
) -> None:
    grid = f"space.config.height={{grid: {heights}}}"
    job = play(CURVES, f"trial.target=curves:{target}", f"scheduler={scheduler}", grid, "timeout=600")
    assert job.result.ended_early == ""
    failed = [trial for trial in job.trials if trial.status == "failed"]
    assert [trial.reason for trial in failed] == ["RuntimeError: the best fails"]
    assert {trial.status for trial in job.trials if trial not in failed} <= {"completed", "pruned"}
    assert [trial for trial in job.trials if trial.epoch == 8 and trial.assignment["config.height"] == 7]


@pytest.mark.parametrize("kind", ["pbt", "pb2"])
def test_a_population_goes_on_without_the_one_that_it_waited_for(play: Play, kind: str) -> None:
    few = ["search={kind: random, trials: 4}", "space.config.height={choice: [1, 2, 8]}", "search.seed=3"]
    job = play(CURVES, "trial.target=curves:doomed", f"scheduler={{kind: {kind}, interval: 3}}", *few)
    _check_record(job)
    failed = [trial for trial in job.trials if trial.status == "failed"]
    assert 0 < len(failed) < 4  # else nobody waits
    assert {trial.reason for trial in failed} == {"RuntimeError: the best fails"}
    assert {(trial.status, trial.epoch) for trial in job.trials if trial not in failed} == {("completed", 8)}


def test_what_a_function_logs_itself_lies_below_its_trial(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    job = play(CURVES, "trial.target=curves:logging_itself", "space.config.height={grid: [1, 2, 3, 4, 5]}")
    experiment = job.parent.info.experiment_id
    found = job.client.search_runs([experiment], "tags.`tuner.inside` != ''")
    own = {run.info.run_name: run for run in found if run.info.run_name != "inner"}
    assert sorted(own) == [f"mine {height}" for height in range(1, 6)]
    for trial in job.trials:
        height = trial.assignment["config.height"]
        mine, run = own[f"mine {height}"], job.runs[trial.number]
        assert mine.data.metrics == {"own": height}
        assert mine.data.tags["mlflow.parentRunId"] == run.info.run_id
        # One that its function left active ends as its trial did.
        expected = {2: ("diverged", "FAILED"), 3: ("failed", "FAILED")}.get(height, ("completed", "FINISHED"))
        assert (trial.status, mine.info.status) == expected
        [inner] = [r for r in found if r.data.tags["mlflow.parentRunId"] == mine.info.run_id]
        assert (inner.info.run_name, inner.info.status, inner.data.params) == ("inner", "FINISHED", {"p": "1"})
    assert len(job.runs) == 5  # none of them is taken for a trial


UNSOUND = {
    "fifo": ["scheduler={kind: fifo}", "objective=[{metric: score, mode: max}, {metric: other, mode: max}]"],
    "asha": ["scheduler={kind: asha, longest: 8}"],
    "hyperband": ["scheduler={kind: hyperband, longest: 8}"],
    "median": ["scheduler={kind: median}", "search={kind: bayesian, trials: 8}", "space.config.height={int: [1, 8]}"],
    "pbt": ["scheduler={kind: pbt, interval: 3}", "search={kind: random, trials: 8, seed: 1}"],
    "pb2": ["scheduler={kind: pb2, interval: 3}", "search={kind: random, trials: 8, seed: 1}"],
}


@pytest.mark.parametrize("kind", UNSOUND)
def test_a_score_that_is_not_finite_is_none(play_here: Play, kind: str) -> None:
    heights = ["space.config.height={choice: [1, 2, 3, 4, 5, 6, 7, 8]}"] if kind in ("pbt", "pb2") else []
    job = play_here(CURVES, "trial.target=curves:unsound", "stop.score=1000", *heights, *UNSOUND[kind])
    assert job.result.status == OK
    assert "Traceback" not in job.text
    wrong = [trial for trial in job.trials if trial.not_finite]
    assert {trial.status for trial in wrong} <= {"diverged"}
    assert {trial.status for trial in job.trials if trial not in wrong} <= {"completed", "pruned"}
    for trial in wrong:
        assert re.fullmatch(rf"score was (inf|nan) in epoch {trial.epoch}(; other was .*)?", trial.reason)
        assert job.runs[trial.number].info.status == "FAILED"
        if kind not in ("pbt", "pb2"):  # whose worst go on as copies of others, some of them of these
            assert "best_score" not in job.runs[trial.number].data.metrics
    if kind not in ("pbt", "pb2"):
        assert len(wrong) == sum(trial.assignment["config.height"] in (7, 8) for trial in job.trials)
    if kind in ("fifo", "asha", "hyperband"):  # a grid: the best of those that are sound
        assert job.result.winner is not None and job.result.winner.best == 6 * 8
        assert len(wrong) == 2
    assert all(math.isfinite(value) for trial in job.trials for value in trial.series.values())
    recorded = [value for number in job.runs for value in job.history(number, "score").values()]
    assert not all(abs(value) < 1e300 for value in recorded)  # what it was is in the record all the same


@pytest.mark.parametrize("scheduler", ["{kind: fifo}", "{kind: asha}", "{kind: hyperband}", "{kind: pbt, interval: 3}"])
def test_a_process_that_is_lost_between_two_trials_costs_none(
    play: Play, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    reset = Controller._schedule_trial_reset

    def deadly(self: Controller, trial: Any, *arguments: Any) -> None:
        if len(killed) < 2:
            ray.kill(trial.temporary_state.ray_actor)
            killed.append(trial.trial_id)
        reset(self, trial, *arguments)

    monkeypatch.setattr(Controller, "_schedule_trial_reset", deadly)
    random = ["search={kind: random, trials: 6}", "space.config.height={choice: [1, 2, 3, 4, 5]}"]
    job = play(CURVES, f"scheduler={scheduler}", *(random if "pbt" in scheduler else ()))
    _check_record(job)
    assert len(killed) == 2
    assert sum(trial.lost for trial in job.trials) == 2
    assert {trial.status for trial in job.trials} <= {"completed", "pruned"}


def test_a_goal_ends_the_job(play_here: Play) -> None:
    job = play_here(CURVES, "stop={score: 30}", "trial.config.reports=1000")
    _check_record(job)
    assert job.result.status == OK
    assert "ended early: score 3" in job.text and "reached 30" in job.text
    assert job.result.winner is not None and (job.result.winner.best or 0) >= 30
    assert {trial.status for trial in job.trials} == {"interrupted"} and len(job.trials) < 8
    assert job.parent.data.tags["tuner.ended_early"] == job.result.ended_early
    # It ended with the report that came with the best checkpoint, before Ray had told of that.
    assert job.result.winner is not None and job.result.winner.checkpoint is not None
    assert Path(job.result.winner.checkpoint, "step").read_text() == str(job.result.winner.best_epoch)


def test_a_budget_of_epochs_ends_the_job(play_here: Play) -> None:
    job = play_here(CURVES, "budget={epochs: 21}")
    _check_record(job)
    assert job.result.status == OK
    assert "ended early: the budget of 21 epochs is spent" in job.text
    assert 21 <= sum(trial.epoch for trial in job.trials) <= 23  # what was on its way comes in
    assert {trial.status for trial in job.trials} == {"completed", "interrupted"}  # whose worker comes first is chance


def test_a_timeout_ends_the_job(play_here: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    class Soon(StoppingCriteria):
        """Its time is up as soon as a trial has reported: its start takes long on a busy machine."""

        def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
            super().trial_reported(trial, report)
            self._deadline = min(self._deadline or 0, time.time())

    monkeypatch.setattr("tuner.jobs.job.StoppingCriteria", Soon)
    job = play_here(CURVES, "timeout=1h", "trial.config.reports=null")
    _check_record(job)
    assert job.result.status == OK
    assert "ended early: timeout" in job.text
    assert [trial.status for trial in job.trials] == ["interrupted"]
    assert job.result.winner is not None


def test_when_the_first_trials_all_fail_the_job_ends_and_says_why(play_here: Play) -> None:
    job = play_here(CURVES, "trial.target=curves:broken", "space={config.height: {int: [1, 100]}}", "search.kind=grid")
    _check_record(job)
    assert job.result.status == FAILED
    assert 3 <= len([trial for trial in job.trials if trial.status == "failed"]) <= 5
    assert "ended early: the first 3 trials all failed, the last of them with RuntimeError: nothing works" in job.text
    assert "Traceback" in job.text and 'raise RuntimeError(f"nothing works' in job.text


def test_several_objectives_leave_a_front(play_here: Play) -> None:
    job = play_here(
        TRAINING,
        "objective=[val_accuracy, parameters]",
        "trial.epochs=2",
        "space={model.hidden: {grid: [4, 8, 16, 32]}, optimizer.lr: {grid: [0.05, 1.0e-5]}}",
        "search={kind: random, trials: 8, seed: 0}",
        "budget={trials: 5}",
    )
    _check_record(job)
    assert job.result.status == OK
    assert [trial.status for trial in job.trials] == ["completed"] * 5
    points = {t.number: (-(t.best or 0), t.best_report["parameters"]) for t in job.trials}
    front = {
        number
        for number, (loss, size) in points.items()
        if not any(o != (loss, size) and o[0] <= loss and o[1] <= size for o in points.values())
    }
    assert {number for number, record in job.runs.items() if record.data.tags.get("pareto") == "true"} == front
    assert 0 < len(front) < 5
    artifacts = {artifact.path for artifact in job.client.list_artifacts(job.parent.info.run_id)}
    assert {"pareto.html", "leaderboard.csv"} <= artifacts
    table = pd.read_csv(job.client.download_artifacts(job.parent.info.run_id, "leaderboard.csv"))
    assert set(table.loc[table["pareto"], "trial"]) == front
    assert f"{len(front)} trials, drawn in pareto.html" in job.text


@pytest.mark.parametrize(
    "scheduler",
    [
        "{kind: asha, longest: 8}",
        "{kind: hyperband, longest: 8}",
        "{kind: median}",
        "{kind: pbt, interval: 2}",
        "{kind: pb2, interval: 3}",
    ],
)
def test_a_report_without_the_objective_is_none_to_the_scheduler(play_here: Play, scheduler: str) -> None:
    few = ["search={kind: random, trials: 4, seed: 2}", "space.config.height={uniform: [1, 9]}", "timeout=600"]
    job = play_here(CURVES, "trial.target=curves:some_never", f"scheduler={scheduler}", *few)
    assert job.result.ended_early == ""
    never = [trial for trial in job.trials if trial.status == "failed"]
    assert len(never) == 2
    assert all("never reported 'score'" in trial.reason for trial in never)
    assert {trial.status for trial in job.trials if trial not in never} <= {"completed", "pruned"}
