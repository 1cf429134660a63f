"""Measures recovery from faults, and the overhead of a long job.

    python -m benchmarks.nights recovery   # a trial's worker is killed: seconds until the trial reports again
    python -m benchmarks.nights resume     # the driver is killed after 1,000 trials: seconds until --resume starts one
    python -m benchmarks.nights bayesian   # 200 trials of one second on 2 cores, Bayesian search, against the ideal

Each job is started as a user starts it, in an empty folder; the times of events are read from its journal.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks import machine
from benchmarks.tables import spread, table

CORES = 2
_IN_FLIGHT = 0.2  # seconds in which a report of a killed process may still arrive


def second(config: dict[str, Any]) -> None:
    """Run a trial of one second."""
    from ray import tune

    time.sleep(1.0)
    tune.report({"loss": (config["x"] - 0.3) ** 2 + (config["y"] - 0.6) ** 2})


def nothing(config: dict[str, Any]) -> None:
    """Run a trial that reports once and does nothing else."""
    from ray import tune

    tune.report({"loss": config["x"]})


def _function(name: str, search: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "night",
        "objective": {"metric": "loss", "mode": "min"},
        "trial": {"target": f"benchmarks.nights:{name}", "config": {"x": 0.0, "y": 0.0}},
        "space": {"config.x": {"uniform": [0, 1]}, "config.y": {"uniform": [0, 1]}},
        "search": search,
        "resources": {"cpu": 1, "gpu": 0},
    }


def training(trials: int, epochs: int) -> dict[str, Any]:
    return {
        "name": "night",
        "objective": "val_accuracy",
        "trial": {
            "data": {"kind": "digits", "batch_size": 64, "limit": 400},
            "model": {"kind": "cnn", "width1": 4, "width2": 8, "hidden": 16},
            "optimizer": {"kind": "sgd", "lr": 0.1},
            "epochs": epochs,
        },
        "space": {"optimizer.lr": {"loguniform": [1e-3, 0.3]}},
        "search": {"kind": "random", "trials": trials},
        "resources": {"cpu": 1, "gpu": 0},
        "checkpoints": {"keep": 3},
        "retry": {"lost": 1000},
    }


class Night:
    """A job in a folder, which can be started, killed and resumed repeatedly."""

    def __init__(
        self, folder: Path, spec: dict[str, Any], uri: str = "", *, popen: Callable[..., Any] = subprocess.Popen
    ) -> None:
        self.folder = folder
        self._popen = popen
        """Starts the driver, for example on another host."""
        self.uri = uri or f"sqlite:///{folder}/mlflow.db"
        (folder / "night.yaml").write_text(yaml.safe_dump(spec))
        self.log = folder / "log.txt"
        self.process: subprocess.Popen[Any] | None = None

    def start(self, *more: str) -> None:
        """Start the job, or resume it with the option `--resume`."""
        command = [sys.executable, "-m", "tuner.run", "night.yaml", *more]
        root = str(Path(__file__).resolve().parents[1])
        environment = machine.environment() | {"MLFLOW_TRACKING_URI": self.uri, "PYTHONPATH": root}
        with self.log.open("a") as log:
            self.process = self._popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def events(self) -> list[dict[str, Any]]:
        """Return the events in the journal so far."""
        lines = [line for path in self.folder.glob("runs/night/*/journal.jsonl") for line in path.open()]
        events = []
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):  # the line is being written
                events.append(json.loads(line))
        return events

    def until(self, holds: Callable[[list[dict[str, Any]]], Any], patience: float = 300.0) -> Any:
        """Wait until `holds` returns a true value for the journal's events, and return that value."""
        deadline = time.monotonic() + patience
        while not (found := holds(self.events())):
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            assert self.process is not None and self.process.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.1)
        return found

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes that run trials."""
        assert self.process is not None
        found = []
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if "ImplicitFunc" in " ".join(child.cmdline()):
                        found.append(child)
        return found

    def kill(self) -> None:
        """Kill the driver alone with SIGKILL, and wait until the processes that it started have ended.

        Ray and the writer process detect by themselves that the driver has ended.
        """
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        deadline = time.monotonic() + 90
        while left := self._left():
            time.sleep(0.2)
            if time.monotonic() > deadline:
                for process in left:
                    with contextlib.suppress(psutil.Error):
                        process.kill()
                return

    def _left(self) -> list[psutil.Process]:
        assert self.process is not None
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == self.process.pid:  # the driver was started as the leader of a session
                    found.append(process)
        return found

    def wait(self, patience: float) -> int:
        """Wait for the driver to end, and return its exit status."""
        assert self.process is not None
        return self.process.wait(patience)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="night-") as name:
        yield Path(name)


def recovery(options: argparse.Namespace) -> None:
    """Measure the seconds from a kill to the trial's next report, for one of two trials and for both at once."""
    rows = []
    with _folder() as folder:
        night = Night(folder, training(trials=2, epochs=100_000))
        night.start()
        for many, what in ((1, "one of two trials killed"), (2, "both killed")):
            took = []
            for _ in range(options.turns):
                # Wait until both trials have reported again and so have a checkpoint.
                seen = len(night.events())
                night.until(lambda events, seen=seen: reports(events[seen:]).keys() >= {0, 1})  # type: ignore[misc]
                workers = night.workers()[:many]
                killed = time.time()
                for victim in workers:
                    victim.kill()
                since = killed + _IN_FLIGHT
                reported = night.until(lambda events, at=since: _both_reported(events, at))  # type: ignore[misc]
                took += sorted(when - killed for when in reported.values())[-many:]  # a surviving trial reports at once
            rows.append([f"{what}, until it reports a new epoch", spread(took, ".1f")])
        night.kill()
    print(table(["what", "seconds"], rows))


def reports(events: list[dict[str, Any]], since: float = 0.0) -> dict[int, float]:
    """Return the time of each trial's first report after `since`."""
    times: dict[int, float] = {}
    for event in events:
        if event["event"] == "reported" and event["time"] > since:
            times.setdefault(event["trial"], event["time"])
    return times


def _both_reported(events: list[dict[str, Any]], since: float) -> dict[int, float]:
    times = reports(events, since)
    return times if len(times) == 2 else {}


def resume(options: argparse.Namespace) -> None:
    """Measure the seconds from `--resume` to the start of its first trial."""
    took, shown = [], options.trials or 1000
    for _ in range(options.turns):
        with _folder() as folder:
            night = Night(folder, _function("nothing", {"kind": options.search, "trials": shown + 200}))
            night.start()
            night.until(lambda events: len([e for e in events if e["event"] == "ended"]) >= shown, 1200)
            night.kill()
            began = time.time()
            night.start("--resume")
            night.until(lambda events, at=began: any(e["event"] == "started" and e["time"] > at for e in events))  # type: ignore[misc]
            first = min(e["time"] for e in night.events() if e["event"] == "started" and e["time"] > began)
            took.append(first - began)
            night.kill()
    what = f"--resume of a job of {shown} trials ({options.search}), until its first trial begins"
    print(table(["what", "seconds"], [[what, spread(took, ".1f")]]))


def bayesian(options: argparse.Namespace) -> None:
    """Measure the seconds from the first trial's start to the last one's end, against the ideal on two cores."""
    trials, rows = options.trials or 200, []
    for _ in range(options.turns):
        with _folder() as folder:
            night = Night(folder, _function("second", {"kind": "bayesian", "trials": trials}))
            began = time.time()
            night.start()
            status = night.wait(3600)
            assert status == 0, night.log.read_text()[-3000:]
            total = time.time() - began
            events = night.events()
            begun = min(e["time"] for e in events if e["event"] == "started")
            ended = max(e["time"] for e in events if e["event"] == "ended")
            rows.append((ended - begun, total))
    ideal = trials / CORES
    print(
        table(
            ["trials", "ideal, s", "first start to last end, s", "over ideal", "whole job, s"],
            [
                [
                    str(trials),
                    f"{ideal:.0f}",
                    spread([a for a, _ in rows], ".1f"),
                    spread([a / ideal for a, _ in rows]),
                    spread([b for _, b in rows], ".1f"),
                ]
            ],
        )
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What faults cost, and long jobs.")
    parser.add_argument("what", choices=["recovery", "resume", "bayesian"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--trials", type=int, default=0)
    parser.add_argument("--search", default="random", choices=["random", "bayesian"], help="of `resume`")
    options = parser.parse_args()
    neighbours = machine.Neighbours()
    neighbours.look()
    {"recovery": recovery, "resume": resume, "bayesian": bayesian}[options.what](options)
    print(f"\n{machine.facts(neighbours)}")


if __name__ == "__main__":
    main()
