"""Measures how long ``tuner report`` takes for a large job, and the size of its file.

    python -m benchmarks.report_time [--trials 1000] [--reports 20] [--repeats 3]

A job without training is recorded in SQLite with its journal; then ``tuner report`` is run in a new process.
"""

import argparse
import contextlib
import math
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.record_cost import experiment
from benchmarks.tables import spread, table
from tuner.tracking.record.messages import end_of
from tuner.tracking.record.recorder import Recorder
from tuner.trials.generator import TrialGenerator
from tuner.trials.journal import FILE, Journal


def record(folder: Path, trials: int, reports: int) -> None:
    """Record a job whose curves look like those of a training; some trials are pruned."""
    rng = random.Random(0)
    spec = experiment(trials, reports, folder)
    job = folder / "job"
    recorder, generator = Recorder(spec, f"sqlite:///{folder}/mlflow.db"), TrialGenerator(spec)
    journal = Journal(str(job), follow=recorder.put)
    links = recorder.open("job", str(job), folder, trials)
    journal.opened(spec, parent_run=links.parent_run_id, trials=trials)
    while (trial := generator.next()) is not None:
        trial.started = time.time()
        trial.status = "running"
        journal.trial_started(trial)
        limit, speed, is_pruned = rng.uniform(0.5, 0.99), rng.uniform(0.1, 1.0), rng.random() < 0.3
        for epoch in range(1, reports // 4 if is_pruned else reports + 1):
            accuracy = limit * (1 - math.exp(-speed * epoch)) + rng.gauss(0, 0.005)
            report = dict.fromkeys(spec.trial.metrics or (), 0.5) | {"epoch": epoch, "val_accuracy": accuracy}
            trial.take(report, spec.objective)
            journal.trial_reported(trial, report)
        trial.end("pruned" if is_pruned else "completed", "")
        journal.trial_ended(trial)
    journal.closed(is_finished=True)
    recorder.job_ended(end_of("FINISHED", {"status": "completed"}, journal=str(job / FILE)))
    recorder.close()
    assert recorder.failure is None, recorder.failure


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How long the report of a large job takes.")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--reports", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    neighbours = machine.Neighbours()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        record(Path(folder), options.trials, options.reports)
        seconds, page = [], Path(folder, "report.html")
        for _ in range(options.repeats):
            neighbours.look()
            command = [sys.executable, "-m", "tuner", "report", "record-cost", "-o", str(page)]
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env=machine.environment())
            seconds.append(time.perf_counter() - began)
        size = page.stat().st_size / 1e6
    header = ["trials", "reports each", "tuner report, s", "file, MB"]
    row = [f"{options.trials:,}", str(options.reports), spread(seconds, ".1f"), f"{size:.1f}"]
    print(f"{table(header, [row])}\n\n{machine.facts(neighbours)}")


if __name__ == "__main__":
    main()
