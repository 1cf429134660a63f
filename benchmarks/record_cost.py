"""Measures the cost of recording in MLflow, for tuner and for Ray Tune's MLflow callback.

    python -m benchmarks.record_cost [--trials 1000] [--stock-trials 50] [--pace 10] [--stores sqlite postgresql]

The job has no training: both sides receive the same trials and reports by the calls that Ray Tune makes in its control
loop, each with a new store: a SQLite file, or an MLflow server with a PostgreSQL database. During these calls no trial
can start or continue. `ours` includes the journal, which is written synchronously. `--pace` is the number of trials
that end in a second; "behind" is the time from the end of the last trial until the record is complete.
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient

from benchmarks import machine
from benchmarks.servers import mlflow_server, postgres
from benchmarks.tables import table
from tuner.spec.experiment import ExperimentSpec
from tuner.tracking.record.messages import end_of
from tuner.tracking.record.recorder import Recorder
from tuner.trials.generator import TrialGenerator
from tuner.trials.journal import Journal
from tuner.trials.trial import Trial

HEADER = ["store", "side", "ms a report", "ms a trial", "control loop, s", "behind, s", "driver memory, MB"]
SIDE_BY_SIDE = 4
"""The number of trials that run at the same time."""


def experiment(trials: int, reports: int, folder: Path) -> ExperimentSpec:
    """Return an experiment with this number of trials and of epochs a trial."""
    return ExperimentSpec.model_validate(
        {
            "name": "record-cost",
            "objective": "val_accuracy",
            "trial": {"data": {"kind": "digits"}, "model": {"kind": "cnn"}, "epochs": reports},
            "space": {"optimizer.lr": {"loguniform": [1e-4, 0.1]}, "optimizer.momentum": {"uniform": [0, 0.99]}},
            "search": {"kind": "random", "trials": trials},
            "storage": str(folder / "runs"),
            "tracking": {"register": False},
        }
    )


class Ours:
    """tuner: the journal, and the recorder that follows it."""

    def __init__(self, spec: ExperimentSpec, uri: str, folder: Path) -> None:
        self._spec = spec
        self._recorder = Recorder(spec, uri)
        self._journal = Journal(str(folder / "job"), follow=self._recorder.put)
        self._recorder.open("job", str(folder / "job"), folder, spec.count())
        self._journal.opened(spec, parent_run="", trials=spec.count())

    def start(self, trial: Trial) -> None:
        self._journal.trial_started(trial)

    def report(self, trial: Trial, report: dict[str, Any]) -> None:
        self._journal.trial_reported(trial, report)

    def end(self, trial: Trial) -> None:
        self._journal.trial_ended(trial)

    def close(self) -> None:
        self._recorder.job_ended(end_of("FINISHED", {}))
        self._recorder.close()
        assert self._recorder.failure is None


class Stock:
    """Ray Tune's `MLflowLoggerCallback`."""

    def __init__(self, spec: ExperimentSpec, uri: str, folder: Path) -> None:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        self._callback = MLflowLoggerCallback(tracking_uri=uri, experiment_name=spec.name)
        self._callback.setup()
        self._trials: dict[int, Any] = {}

    def start(self, trial: Trial) -> None:
        self._trials[trial.number] = _RayTrial(trial)
        self._callback.log_trial_start(self._trials[trial.number])

    def report(self, trial: Trial, report: dict[str, Any]) -> None:
        # The keys that Ray adds to each result.
        more = {"training_iteration": report["epoch"], "time_this_iter_s": 1.0, "time_total_s": 1.0, "timestamp": 1}
        more |= {"time_since_restore": 1.0, "iterations_since_restore": 1, "pid": 1}
        self._callback.log_trial_result(report["epoch"], self._trials[trial.number], report | more)

    def end(self, trial: Trial) -> None:
        self._callback.log_trial_end(self._trials[trial.number])

    def close(self) -> None:
        """Do nothing: the callback writes synchronously."""


class _RayTrial:
    """The attributes of Ray's trial that its callback reads."""

    def __init__(self, trial: Trial) -> None:
        self.config = dict(trial.assignment)
        self._name = f"trial-{trial.number}"

    def __str__(self) -> str:
        return self._name


def play(side: Ours | Stock, spec: ExperimentSpec, pace: float) -> dict[str, float]:
    """Pass the events of a full job to `side`, with trials in parallel, and return the measurements."""
    spent = {"start": 0.0, "report": 0.0, "end": 0.0}

    def timed(name: str, call: Callable[[], None]) -> None:
        began = time.perf_counter()
        call()
        spent[name] += time.perf_counter() - began

    generator = TrialGenerator(spec)
    before = psutil.Process().memory_info().rss
    began, count = time.perf_counter(), 0
    while running := [trial for trial in (generator.next() for _ in range(SIDE_BY_SIDE)) if trial is not None]:
        for trial in running:
            trial.status, trial.started = "running", time.time()
            timed("start", lambda trial=trial: side.start(trial))  # type: ignore[misc]
        for epoch in range(1, spec.trial.length or 1):
            for trial in running:
                report = dict.fromkeys(spec.trial.metrics or (), 0.5) | {"epoch": epoch, "device": "cpu"}
                report |= {"val_accuracy": epoch / 100, "precision": "float32"}
                trial.take(report, spec.objective)
                timed("report", lambda trial=trial, report=report: side.report(trial, report))  # type: ignore[misc]
        for trial in running:
            trial.end("completed", "")
            timed("end", lambda trial=trial: side.end(trial))  # type: ignore[misc]
        count += len(running)
        time.sleep(max(0.0, count / pace - (time.perf_counter() - began)))
    last = time.perf_counter()
    after = psutil.Process().memory_info().rss
    side.close()
    reports = count * ((spec.trial.length or 1) - 1)
    return {
        "report": spent["report"] / reports * 1000,
        "trial": (spent["start"] + spent["end"]) / count * 1000,
        "loop": sum(spent.values()),
        "behind": time.perf_counter() - last,
        "grown": (after - before) / 1e6,
        "memory": after / 1e6,
    }


@contextlib.contextmanager
def store(kind: str, folder: Path) -> Iterator[str]:
    """Create a new store with its tables, and yield its URI."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(folder))  # with SQLite, MLflow writes artifacts there
        if kind == "sqlite":
            uri = f"sqlite:///{folder}/mlflow.db"
        else:
            uri = stack.enter_context(mlflow_server(stack.enter_context(postgres()), folder / "artifacts"))
        MlflowClient(uri).search_experiments()
        yield uri


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What the record costs: ours, and Ray Tune's callback.")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--stock-trials", type=int, default=50, help="of Ray's callback, which takes seconds for each")
    parser.add_argument("--reports", type=int, default=20)
    parser.add_argument("--pace", type=float, default=10.0, help="trials a second")
    parser.add_argument("--stores", nargs="+", default=["sqlite", "postgresql"], choices=["sqlite", "postgresql"])
    options = parser.parse_args()
    neighbours = machine.Neighbours()
    print(f"{options.trials} trials of {options.reports} reports, {options.pace:g} trials a second\n")
    rows = []
    for kind in options.stores:
        for name, side in (("ours", Ours), ("stock", Stock)):
            neighbours.look()
            with tempfile.TemporaryDirectory() as folder, store(kind, Path(folder)) as uri:
                trials = options.trials if side is Ours else options.stock_trials
                spec = experiment(trials, options.reports + 1, Path(folder))
                took = play(side(spec, uri, Path(folder)), spec, options.pace)
            memory = f"{took['memory']:.0f} ({took['grown']:+.0f})"
            figures = [f"{took['report']:.3f}", f"{took['trial']:.2f}", f"{took['loop']:.1f}", f"{took['behind']:.1f}"]
            rows.append([kind, f"{name}, {trials} trials", *figures, memory])
            print("  ".join(rows[-1]), flush=True)
    print(f"\n{table(HEADER, rows)}\n\n{machine.facts(neighbours)}")


if __name__ == "__main__":
    main()
