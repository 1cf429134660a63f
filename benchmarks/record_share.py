"""Measures the share of recording in a job's time: with no record, on SQLite, on a server, and on a slow server.

    python -m benchmarks.record_share [--trials 24] [--turns 3] [--delay 0.5]

Full jobs with real training run in turns, each in a new process. "calls" is the time inside the recorder's calls in the
control loop; "trials" is the time from the start of the first trial to the end of the last, which includes the CPU time
that the writer process takes from the trials; "after" is the time from then to the end of the job, with the winner's
test, the report and the registration of the model. Without a record no model is registered. Ratios are taken within a
turn.
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

from benchmarks import machine
from benchmarks.servers import mlflow_server, slow
from benchmarks.tables import spread, table

HEADER = ["store", "calls, ms", "share of the job", "trials, s", "over no record", "after the last trial, s", "job, s"]
NONE = "no record"
_SETTLE = 15.0  # seconds until all processes of a server have started and are idle


def experiment(trials: int, folder: Path, uri: str) -> dict[str, Any]:
    """Return an experiment with this number of trials, which train for one to two seconds each."""
    return {
        "name": "record-share",
        "objective": "val_accuracy",
        "trial": {"data": {"kind": "digits"}, "model": {"kind": "cnn"}, "epochs": 8},
        "space": {"optimizer.lr": {"loguniform": [0.001, 0.1]}},
        "search": {"kind": "random", "trials": trials},
        "resources": {"cpu": 1},
        "storage": str(folder / "runs"),
        "tracking": {"uri": uri},
    }


class Measured:
    """A recorder, or one that records nothing, with timed calls."""

    def __init__(self, recorder: Any) -> None:
        self._recorder = recorder
        self.seconds = 0.0
        self.first = self.last = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recorder, name)

    def put(self, event: Any) -> None:
        """Pass a trial's event to the recorder, and time the call."""
        began = time.perf_counter()
        self._recorder.put(event)
        self.last = time.perf_counter()
        self.first = self.first or began
        self.seconds += self.last - began


def child(uri: str, trials: int) -> None:
    """Run the job in this process, and print the measurements as JSON."""
    from rich.console import Console

    from tuner.jobs import driver
    from tuner.spec.experiment import ExperimentSpec
    from tuner.tracking.record.recorder import Links, Recorder

    made: list[Measured] = []

    class Nothing(Recorder):
        """Accepts all events, and writes nothing."""

        def open(self, *arguments: Any, **more: Any) -> Any:
            return Links("", "", "", "")

        def put(self, event: Any) -> None:
            pass

    def recorder(*arguments: Any, **more: Any) -> Any:
        made.append(Measured((Nothing if uri == NONE else Recorder)(*arguments, **more)))
        return made[0]

    vars(driver)["Recorder"] = recorder
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        store = f"sqlite:///{folder}/mlflow.db" if uri in (NONE, "sqlite") else uri
        spec = ExperimentSpec.model_validate(experiment(trials, Path(folder), store))
        began = time.perf_counter()
        with Path(os.devnull).open("w") as nowhere:
            result = driver.run(spec, source=Path(folder), console=Console(file=nowhere))
        ended = time.perf_counter()
        assert result.status == 0 and result.record_failure is None, result.record_failure
        [measured] = made
    took = {"calls": measured.seconds, "trials": measured.last - measured.first, "after": ended - measured.last}
    print(json.dumps(took | {"job": ended - began}), flush=True)
    os._exit(0)


def measure(uri: str, trials: int) -> dict[str, float]:
    """Run the job with a store in a new process, and return the measurements."""
    command = [sys.executable, "-m", "benchmarks.record_share", "--child", uri, "--trials", str(trials)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=machine.environment())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What the record takes of a job's time.")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--delay", type=float, default=0.5, help="seconds that the slow server takes for each answer")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.trials)
    neighbours = machine.Neighbours()
    took: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        store = f"sqlite:///{folder}/mlflow.db"
        server = stack.enter_context(mlflow_server(store, Path(folder, "artifacts")))
        late = stack.enter_context(slow(server, options.delay))
        stores = {NONE: NONE, "SQLite": "sqlite", "a server": server, f"a server, {options.delay:g} s late": late}
        time.sleep(_SETTLE)
        for turn in range(options.turns):
            neighbours.look()
            for name, uri in stores.items():
                took.setdefault(name, []).append(measure(uri, options.trials))
                print(turn + 1, name, {key: round(value, 3) for key, value in took[name][-1].items()}, flush=True)
    rows = []
    for name, turns in took.items():
        over = [turn["trials"] / none["trials"] - 1 for turn, none in zip(turns, took[NONE], strict=True)]
        rows.append(
            [
                name,
                "" if name == NONE else spread([1000 * turn["calls"] for turn in turns], ".0f"),
                "" if name == NONE else f"{median(turn['calls'] / turn['job'] for turn in turns):.3%}",
                spread([turn["trials"] for turn in turns], ".1f"),
                "" if name == NONE else spread([100 * value for value in over], "+.1f") + " %",
                spread([turn["after"] for turn in turns], ".1f"),
                spread([turn["job"] for turn in turns], ".1f"),
            ]
        )
    print(f"\n{options.trials} trials, {options.turns} turns\n\n{table(HEADER, rows)}\n\n{machine.facts(neighbours)}")


if __name__ == "__main__":
    main()
