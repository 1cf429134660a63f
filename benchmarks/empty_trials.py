"""Measures the overhead of a trial that does nothing: tuner with its full record against bare Ray Tune.

    python -m benchmarks.empty_trials [--trials 1000] [--reports 3] [--turns 3] [--sides bare ours failing]

`bare` is the baseline: a function trainable, actors reused, all loggers off, nothing recorded. `ours` is tuner: it runs
the same function as a target (`trial: {target: ...}`) and records all trials in MLflow (SQLite), in the journal and in
the report. "trials" is the time inside Ray Tune's run, after Ray has started; "job" is the time of the full job, from
an empty folder to the end of the record. Reports a second are counted from the first report to the last, without the
start of the workers. `failing` is `ours` with a function that raises after its reports. To measure the rate of reports:
`--trials 2 --reports 5000 --sides bare ours`.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks import machine
from benchmarks.tables import spread, table

HEADER = ["side", "trials", "reports", "trials, s", "ms a trial", "over bare", "reports/s", "over bare", "job, s", "MB"]
CORES = 2


def empty(config: dict[str, Any]) -> None:
    """Report the given number of times and do nothing else."""
    from ray import tune

    for number in range(config["reports"]):
        tune.report({"loss": number + config["x"]})
    if config.get("fails"):
        raise ValueError("it was to fail")


def experiment(trials: int, reports: int, folder: Path, *, fails: bool = False) -> dict[str, Any]:
    """Return the experiment that runs `empty` with tuner."""
    return {
        "name": "empty",
        "objective": {"metric": "loss", "mode": "min"},
        "trial": {"target": "benchmarks.empty_trials:empty", "config": {"reports": reports, "x": 0.0, "fails": fails}},
        "space": {"config.x": {"uniform": [0, 1]}},
        "search": {"kind": "random", "trials": trials},
        "resources": {"cpu": 1, "gpu": 0},
        "storage": str(folder / "runs"),
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
    }


def bare(trials: int, reports: int, folder: Path) -> dict[str, float]:
    """Measure Ray Tune without tuner."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    import logging

    import ray
    from ray import tune

    began = time.perf_counter()
    ray.init(address="local", num_cpus=CORES, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    started = time.perf_counter()

    class ReportTimes(tune.Callback):  # type: ignore[misc]
        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
            report_times.append(time.perf_counter())

    report_times: list[float] = []
    found = tune.run(
        empty,
        config={"reports": reports, "x": tune.uniform(0, 1)},
        num_samples=trials,
        resources_per_trial={"cpu": 1},
        reuse_actors=True,
        storage_path=str(folder),
        callbacks=[ReportTimes()],
        verbose=0,
    )
    ended = time.perf_counter()
    assert len(found.trials) == trials
    return _measured(began, started, ended, report_times)


def ours(trials: int, reports: int, folder: Path, *, fails: bool = False) -> dict[str, float]:
    """Measure a full job of tuner."""
    from rich.console import Console

    from tuner.jobs import job
    from tuner.jobs.driver import run
    from tuner.spec.experiment import ExperimentSpec
    from tuner.trials.callback import TrialCallback
    from tuner.trials.trial import Trial

    at: dict[str, float] = {}
    report_times: list[float] = []
    schedule = job.schedule  # type: ignore[attr-defined]

    class ReportTimes(TrialCallback):
        def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
            report_times.append(time.perf_counter())

    def timed(*arguments: Any, **more: Any) -> None:
        at["started"] = time.perf_counter()
        more["listeners"] = [*more["listeners"], ReportTimes()]
        schedule(*arguments, **more)
        at["ended"] = time.perf_counter()

    job.schedule = timed  # type: ignore[attr-defined]
    if fails:  # else a job ends if its first three trials fail
        from tuner.trials import stopping

        stopping._FIRST = trials + 1
    spec = ExperimentSpec.model_validate(experiment(trials, reports, folder, fails=fails))
    began = time.perf_counter()
    with Path(os.devnull).open("w") as nowhere:
        result = run(spec, source=folder, console=Console(file=nowhere))
    assert result.record_failure is None, result.record_failure
    wanted = "failed" if fails else "completed"
    assert [trial.status for trial in result.trials] == [wanted] * trials
    assert len(report_times) == trials * reports  # no report is lost
    return _measured(began, at["started"], at["ended"], report_times)


def _measured(began: float, started: float, ended: float, report_times: list[float]) -> dict[str, float]:
    rate = (len(report_times) - 1) / (report_times[-1] - report_times[0])
    peak = psutil.Process().memory_info().rss / 1e6
    return {"trials": ended - started, "job": time.perf_counter() - began, "rate": rate, "memory": peak}


def failing(trials: int, reports: int, folder: Path) -> dict[str, float]:
    """Measure a full job of tuner whose trials all raise."""
    return ours(trials, reports, folder, fails=True)


SIDES = {side.__name__: side for side in (bare, ours, failing)}


def measure(side: str, trials: int, reports: int) -> dict[str, float]:
    """Measure a side once, in a new process."""
    command = [sys.executable, "-m", "benchmarks.empty_trials", "--child", side]
    command += ["--trials", str(trials), "--reports", str(reports)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=machine.environment())
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What an empty trial costs, against bare Ray Tune.")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--reports", type=int, default=3)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--sides", nargs="+", default=["bare", "ours", "failing"], choices=list(SIDES))
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            print(json.dumps(SIDES[options.child](options.trials, options.reports, Path(folder))), flush=True)
        os._exit(0)
    neighbours = machine.Neighbours()
    took: dict[str, list[dict[str, float]]] = {side: [] for side in options.sides}
    for _ in range(options.turns):
        for side in options.sides:
            neighbours.look()
            took[side].append(measure(side, options.trials, options.reports))
            print(side, took[side][-1], file=sys.stderr, flush=True)
    rows = []
    for side, turns in took.items():
        seconds = [turn["trials"] for turn in turns]
        ratio = [mine["trials"] / base["trials"] for mine, base in zip(turns, took.get("bare", []), strict=False)]
        rates = [mine["rate"] / base["rate"] for mine, base in zip(turns, took.get("bare", []), strict=False)]
        rows.append(
            [
                side,
                str(options.trials),
                str(options.reports),
                spread(seconds, ".1f"),
                f"{1000 * median(seconds) / options.trials:.1f}",
                spread(ratio) if ratio else "",
                spread([turn["rate"] for turn in turns], ".0f"),
                spread(rates) if rates else "",
                spread([turn["job"] for turn in turns], ".1f"),
                f"{median(turn['memory'] for turn in turns):.0f}",
            ]
        )
    print(f"{table(HEADER, rows)}\n\n{machine.facts(neighbours)}")


if __name__ == "__main__":
    main()
