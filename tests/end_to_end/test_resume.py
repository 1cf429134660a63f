"""Jobs that are killed, interrupted or finished, and go on: a real Ray, a real MLflow store and real kills.

What is gone on with to the end has its trials in this process: they go on from what Ray's workers have left.
"""

import contextlib
import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from conftest import processes_below, start_job
from in_process import in_process
from mlflow import MlflowClient
from moments import held_when
from thread_writers import thread_writers

from tuner.cli.app import main
from tuner.jobs.result import INTERRUPTED, OK, WRONG
from tuner.ray_backend.callback import TuneCallback
from tuner.spec.loader import load
from tuner.train.loop import fit
from tuner.train.trial_config import TrialConfig
from tuner.trials.callback import TrialCallback
from tuner.trials.generator import TrialGenerator
from tuner.trials.stopping import StoppingCriteria
from tuner.trials.trial import Trial

pytestmark = pytest.mark.slow

GRID = """
name: grid
objective: val_accuracy
trial:
  data: {kind: digits, batch_size: 8}
  model: {kind: cnn, width1: 4, width2: 8, hidden: 16}
  optimizer: {kind: sgd, lr: 0.1, momentum: 0.5}
  epochs: 5
space:
  optimizer.lr: {grid: [0.05, 0.02, 0.01]}
  model.hidden: {grid: [8, 16]}
search: {kind: grid}
checkpoints: {keep: all}
storage: runs
"""

POPULATION = """
name: population
objective: val_loss
trial:
  data: {kind: digits, batch_size: 8}
  model: {kind: cnn, width1: 4, width2: 8, hidden: 16}
  optimizer: {kind: sgd, lr: 0.1, momentum: 0.5}
  epochs: 6
space:
  optimizer.lr: {loguniform: [1.0e-4, 0.1]}
search: {kind: random, trials: 4, seed: 3}
scheduler: {kind: pbt, interval: 1}
storage: runs
"""

OWN = """
name: own
objective: {metric: loss, mode: min}
trial: {target: "own_steps:train", config: {steps: 6, x: 0}}
space:
  config.x: {int: [1, 12]}
search: {kind: bayesian, trials: 6, seed: 0}
scheduler: {kind: asha, grace: 4, reduction: 2, longest: 6}
checkpoints: {keep: all}
storage: runs
"""

OWN_PY = """
import tempfile
import time
from pathlib import Path

from ray import tune


def train(config):
    checkpoint = tune.get_checkpoint()
    first = int((Path(checkpoint.path) / "step").read_text()) if checkpoint else 0
    for step in range(first + 1, config["steps"] + 1):
        time.sleep(0.2)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "step").write_text(str(step))
            report = {"loss": abs(config["x"] - 5) + 1 / step, "step": step}
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))
"""

RANDOM = """
name: random
objective: val_accuracy
trial:
  data: {kind: digits, limit: 200}
  model: {kind: cnn, width1: 4, width2: 8, hidden: 16}
space:
  optimizer.lr: {loguniform: [1.0e-3, 0.1]}
search: {kind: random, trials: 3, seed: 0}
storage: runs
"""


class Place:
    """A folder with one experiment in it, and what its jobs have left there."""

    def __init__(self, folder: Path, text: str, store: Path) -> None:
        self.folder = folder
        self.name = text.split()[1]
        self.client = MlflowClient(f"sqlite:///{store}/mlflow.db")
        self.file = folder / "job.yaml"
        self.file.write_text(f"{text}tracking: {{uri: 'sqlite:///{store}/mlflow.db', register: false}}\n")
        (folder / "own_steps.py").write_text(OWN_PY)
        self.output = ""

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """The command, as somebody would type it."""
        return start_job(self.folder, "job.yaml", *arguments)

    def go_on(self, *arguments: str) -> int:
        """The same command in this process, where the trials are, too."""
        with in_process(), thread_writers(), pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            with pytest.raises(SystemExit) as leaving:
                main(["run", "job.yaml", *arguments])
        return int(leaving.value.code or 0)

    @property
    def jobs(self) -> list[Path]:
        return sorted((self.folder / "runs" / self.name).glob("*/journal.jsonl"))

    @property
    def events(self) -> list[dict[str, Any]]:
        """The journal of its only job, as far as it is written."""
        if not self.jobs:
            return []
        [journal] = self.jobs
        return [json.loads(line) for line in journal.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def sessions(self) -> list[list[dict[str, Any]]]:
        """The journal, a list for each time that the job was begun."""
        parts: list[list[dict[str, Any]]] = []
        for event in self.events:
            if event["event"] == "opened":
                parts.append([])
            parts[-1].append(event)
        return parts

    def kill_when(self, is_time: Callable[[list[dict[str, Any]]], bool], *, last_words: float = 0.0) -> None:
        """Start it, and kill the driver as nothing can hinder, as soon as the journal says so.

        Args:
            is_time: Whether it is, given the events so far.
            last_words: Seconds that what writes the record has: without any it is as if the machine went down.
        """
        process = self.start()
        children: list[psutil.Process] = []
        try:
            with held_when(process, lambda: is_time(self.events)):
                children = psutil.Process(process.pid).children(recursive=True)
                writers = processes_below(process.pid, "tuner.tracking.record.writer")
                for writer in writers if not last_words else ():
                    writer.suspend()  # it is killed below, and may be faster
                process.kill()
                process.wait()
            psutil.wait_procs(writers, timeout=last_words)
        finally:
            process.kill()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()

    def runs(self, role: str) -> list[Any]:
        experiment = self.client.get_experiment_by_name(self.name)
        assert experiment is not None
        return list(self.client.search_runs([experiment.experiment_id], f"tags.`tuner.role` = '{role}'"))

    def trials(self) -> dict[int, Any]:
        """The run of each trial."""
        found = self.runs("trial")
        numbers = [int(record.data.tags["tuner.trial"]) for record in found]
        assert len(set(numbers)) == len(numbers), "a trial has two runs"
        return dict(sorted(zip(numbers, found, strict=True)))

    def history(self, number: int, metric: str) -> dict[int, float]:
        """A metric by step; where a step was measured twice, both times the same."""
        history: dict[int, float] = {}
        for one in self.client.get_metric_history(self.trials()[number].info.run_id, metric):
            assert history.setdefault(one.step, one.value) == one.value
        return dict(sorted(history.items()))


def _of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


def _numbers(events: list[dict[str, Any]], kind: str) -> list[int]:
    return [event["trial"] for event in _of(events, kind)]


def _is_in_the_middle(events: list[dict[str, Any]]) -> bool:
    """A trial has ended, and one that has not has saved a checkpoint and is far from its end."""
    ended = set(_numbers(events, "ended"))
    return bool(ended) and any(_latest(events, number) in (1, 2) for number in set(_numbers(events, "saved")) - ended)


def _latest(events: list[dict[str, Any]], number: int) -> int:
    """The epoch that a trial has to go on behind."""
    epoch = 0
    for event in events:
        if event.get("trial") == number and event["event"] in ("saved", "mutated"):
            epoch = event["epoch"]
    return epoch


def _check_gone_on(place: Place) -> None:
    """Nothing that had ended was begun again; what had not went on right behind its latest checkpoint."""
    done: set[int] = set()
    before: list[dict[str, Any]] = []
    for session in place.sessions():
        assert not done & set(_numbers(session, "started"))
        for number in set(_numbers(session, "started")):
            reported = [event["report"]["epoch"] for event in _of(session, "reported") if event["trial"] == number]
            if reported:
                first = _latest(before, number) + 1
                assert reported == list(range(first, first + len(reported))), number
        final = [event for event in _of(session, "ended") if event["status"] != "interrupted"]
        done |= {event["trial"] for event in final}
        before += session
    assert all(record.info.status != "RUNNING" for record in [*place.trials().values(), *place.runs("parent")])


def _check_cleared_up(place: Place) -> None:
    """Of every trial the best checkpoint is there, and no other."""
    folder = place.jobs[0].parent
    left = {str(path.relative_to(folder)) for path in folder.rglob("checkpoint_*")}
    assert left == set({event["trial"]: event["best"] for event in _of(place.events, "saved")}.values())


@pytest.fixture(scope="module")
def store(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one MLflow store."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="module")
def grid(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A job that was killed, went on, was interrupted by hand, went on and came to its end."""
    place = Place(tmp_path_factory.mktemp("grid"), GRID, store)
    place.kill_when(_is_in_the_middle)
    assert {record.info.status for record in place.runs("parent")} == {"RUNNING"}
    killed = len(place.events)

    def is_time() -> bool:
        return bool(_of(place.events[killed + 1 :], "ended")) and _is_in_the_middle(place.events)

    process = place.start("--resume")
    try:
        with held_when(process, is_time):
            process.send_signal(signal.SIGINT)
        place.output, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == INTERRUPTED, place.output
    assert "resuming job" in place.output and "--resume continues the job" in place.output
    assert {record.info.status for record in place.trials().values()} <= {"FINISHED", "KILLED"}
    [parent] = place.runs("parent")
    assert (parent.info.status, parent.data.tags["tuner.status"]) == ("KILLED", "interrupted")
    assert place.go_on("--resume") == OK
    return place


def test_no_finished_trial_is_run_again_and_the_others_go_on(grid: Place) -> None:
    first, second, third = grid.sessions()
    assert _numbers(first, "ended") and _numbers(second, "ended") and _numbers(third, "ended")
    _check_gone_on(grid)
    assert {number for session in grid.sessions() for number in _numbers(session, "started")} == set(range(6))
    again = set(_numbers(first, "started")) & set(_numbers(second, "started"))
    assert any(_latest(first, number) > 0 for number in again)  # one of them had come somewhere


def test_ctrl_c_ends_it_cleanly(grid: Place) -> None:
    """Its exit status, and that its runs are ended as killed, are looked at before it goes on."""
    assert "Traceback" not in grid.output
    assert "interrupted" in grid.output
    _, second, _ = grid.sessions()
    assert "interrupted" in {event["status"] for event in _of(second, "ended")}


def test_all_of_it_is_one_record(grid: Place) -> None:
    [parent] = grid.runs("parent")
    assert (parent.info.status, parent.data.tags["tuner.status"]) == ("FINISHED", "completed")
    assert {event["parent_run"] for event in _of(grid.events, "opened")} == {parent.info.run_id}
    assert parent.data.metrics["trials_completed"] == 6
    assert "tuner.ended_early" not in parent.data.tags
    trials = grid.trials()
    assert list(trials) == list(range(6))
    for number, record in trials.items():
        assert (record.info.status, record.data.tags["tuner.status"]) == ("FINISHED", "completed")
        assert record.data.tags.get("tuner.reason") is None
        assert record.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert list(grid.history(number, "val_accuracy")) == [1, 2, 3, 4, 5]
        assert grid.client.list_artifacts(record.info.run_id, "checkpoint")


def test_what_went_on_has_the_numbers_of_what_was_never_interrupted(grid: Place) -> None:
    spec = load(grid.file)
    plan = spec.plan()
    assert plan is not None
    begun = [number for session in grid.sessions() for number in set(_numbers(session, "started"))]
    number = max(set(begun), key=begun.count)
    assert begun.count(number) >= 2
    config = spec.trial_config(plan[number])
    assert isinstance(config, TrialConfig)
    alone: list[dict[str, Any]] = []
    fit(config, spec.objective, lambda metrics, save: alone.append(metrics))
    for name in ("train_loss", "val_loss", "val_accuracy"):
        assert list(grid.history(number, name).values()) == [metrics[name] for metrics in alone], name
    best = max(metrics["val_accuracy"] for metrics in alone)
    assert grid.trials()[number].data.metrics["best_val_accuracy"] == best


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--resume"], "has finished its 6 trials"),
        (["--extend", "3"], "--extend: the space has no more than the 6 trials"),
        (["--resume", "trial.epochs=7"], "trial.epochs: was 5 when the job began, and is 7"),
        (["--extend", "3", "objective=val_loss"], "objective.metric: was"),
        (["--resume", "name=other"], "--resume: there is no job of 'other'"),
    ],
)
def test_what_cannot_go_on_is_refused_and_nothing_is_started(
    grid: Place, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    before = grid.jobs[0].read_text()
    assert grid.go_on(*arguments) == WRONG
    errors = capsys.readouterr().err
    assert said in errors
    assert len(grid.jobs) == 1 and grid.jobs[0].read_text() == before
    assert len(grid.runs("parent")) == 1
    assert grid.client.get_experiment_by_name("other") is None
    assert [path.name for path in (grid.folder / "runs").iterdir()] == ["grid"]


@pytest.fixture(scope="module")
def own(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A function of one's own under Bayesian search and ASHA: killed, twice gone on with, and extended by 3."""
    place = Place(tmp_path_factory.mktemp("own"), OWN, store)
    place.kill_when(_is_in_the_middle, last_words=60)
    # Nobody tells the writer to end the record: that nothing more comes is enough.
    ended = [*place.trials().values(), *place.runs("parent")]
    assert {record.info.status for record in ended} <= {"FINISHED", "KILLED"}
    assert any("broke off" in record.data.tags.get("tuner.reason", "") for record in ended)
    assert place.go_on("--resume", "timeout=0.001") == OK  # it has results
    # Nothing was begun again, and nothing is left as if it went on.
    assert all(record.info.status != "RUNNING" for record in [*place.trials().values(), *place.runs("parent")])
    assert place.go_on("--resume") == OK
    assert set(_numbers(place.events, "started")) == set(range(6))
    assert place.go_on("--extend", "3") == OK
    return place


def test_a_function_of_ones_own_goes_on_from_its_checkpoints(own: Place) -> None:
    first, none, second, _ = own.sessions()
    assert not _of(none, "started") and {event["reason"] for event in _of(none, "ended")} == {"timeout"}
    _check_gone_on(own)
    again = set(_numbers(first, "started")) & set(_numbers(second, "started"))
    assert any(_latest(first, number) > 0 for number in again)
    for number, record in own.trials().items():
        status = record.data.tags["tuner.status"]
        assert status in ("completed", "pruned")
        steps = own.history(number, "step")
        assert all(step == value for step, value in steps.items())  # it goes on where its checkpoint was
        assert list(steps) == list(range(1, 7 if status == "completed" else 5))
        x = float(record.data.params["config.x"])
        assert own.history(number, "loss") == {step: abs(x - 5) + 1 / step for step in steps}


def test_an_extension_tries_so_many_more_and_nothing_twice(own: Place) -> None:
    *_, third = own.sessions()
    assert sorted(_numbers(third, "started")) == [6, 7, 8]
    tried = [record.data.params["config.x"] for record in own.trials().values()]
    assert len(tried) == 9 and len(set(tried)) == 9
    [parent] = own.runs("parent")
    assert parent.info.status == "FINISHED"
    assert {event["parent_run"] for event in _of(own.events, "opened")} == {parent.info.run_id}
    assert parent.data.metrics["trials_completed"] + parent.data.metrics["trials_pruned"] == 9
    assert min(abs(float(x) - 5) for x in tried) <= 1  # the sampler knew where to look


def test_a_random_search_is_extended_by_what_a_longer_one_had_tried(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Place(tmp_path, RANDOM, store)
    assert place.go_on() == OK
    assert place.go_on("--extend", "3") == OK
    assert "3 trials have ended, 0 continue, up to 3 are new" in capsys.readouterr().out
    first, second = place.sessions()
    assert sorted(_numbers(first, "started")) == [0, 1, 2]
    assert sorted(_numbers(second, "started")) == [3, 4, 5]
    plan = load(place.file, ["search.trials=6"]).plan()
    assert plan is not None
    rates = [float(record.data.params["optimizer.lr"]) for record in place.trials().values()]
    assert rates == [assignment["optimizer.lr"] for assignment in plan]
    [parent] = place.runs("parent")
    assert parent.data.metrics["trials_completed"] == 6
    _check_gone_on(place)


@pytest.fixture(scope="module")
def population(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A population that was killed after a mutation, right after a report, and went on."""
    place = Place(tmp_path_factory.mktemp("population"), POPULATION, store)

    def is_time(events: list[dict[str, Any]]) -> bool:
        mutated = next((i for i, event in enumerate(events) if event["event"] == "mutated"), None)
        return mutated is not None and len(_of(events[mutated:], "saved")) >= 3

    place.kill_when(is_time)
    assert place.go_on("--resume") == OK
    return place


def test_a_population_goes_on_to_its_last_epoch(population: Place) -> None:
    _check_gone_on(population)
    first, second = population.sessions()
    assert _of(first, "mutated") and _of(second, "mutated")
    trials = population.trials()
    assert list(trials) == [0, 1, 2, 3]
    for number, record in trials.items():
        assert record.data.tags["tuner.status"] == "completed"
        assert list(population.history(number, "val_accuracy")) == [1, 2, 3, 4, 5, 6]


def test_the_history_of_a_population_that_went_on_is_whole_and_true(population: Place) -> None:
    for number, record in population.trials().items():
        rates = population.history(number, "optimizer.lr")
        assert rates == pytest.approx(population.history(number, "learning_rate"), rel=1e-12), number
        told = [event for event in _of(population.events, "mutated") if event["trial"] == number]
        mutations = []
        if told:
            path = population.client.download_artifacts(record.info.run_id, "mutations.json")
            mutations = json.loads(Path(path).read_text())
        names = ("epoch", "parent", "before", "after")
        assert mutations == [{name: event[name] for name in names} for event in told]
        for mutation in mutations:
            assert mutation["after"]["optimizer.lr"] == pytest.approx(rates[mutation["epoch"] + 1])


def test_the_best_of_a_population_that_went_on_is_told_with_what_it_was_trained_with(population: Place) -> None:
    import pandas as pd

    [parent] = population.runs("parent")
    table = pd.read_csv(population.client.download_artifacts(parent.info.run_id, "leaderboard.csv"))
    for row in table.to_dict("records"):
        rates = population.history(int(row["trial"]), "learning_rate")
        assert row["optimizer.lr"] == pytest.approx(rates[int(row["best_epoch"])]), row["trial"]


def test_a_population_that_went_on_leaves_one_checkpoint_a_trial(population: Place) -> None:
    _check_cleared_up(population)


def test_a_job_that_went_on_leaves_one_checkpoint_a_trial(grid: Place, own: Place) -> None:
    _check_cleared_up(grid)
    _check_cleared_up(own)


def test_trials_begin_in_their_order_whatever_worker_comes_first(tmp_path: Path) -> None:
    """A job that is killed meanwhile leaves no gap among its trials, which would be filled with others."""
    (tmp_path / "job.yaml").write_text(GRID)
    spec = load(tmp_path / "job.yaml")
    generator = TrialGenerator(spec)
    trials = [generator.next() for _ in range(3)]
    begun: list[int] = []

    class Seen(TrialCallback):
        def trial_started(self, trial: Trial) -> None:
            begun.append(trial.number)

    by_id = {str(trial.number): trial for trial in trials if trial is not None}
    events = TuneCallback(by_id, spec, "", StoppingCriteria(), [Seen()], lambda: None)
    for ray_id in ("1", "0", "2"):
        events.on_trial_start(0, [], SimpleNamespace(trial_id=ray_id))
    assert begun == [0, 1, 2]
