"""What faults cost, and what a long job costs beyond its trials.

    python -m benchmarks.nights recovery   # a trial's process is killed: seconds until it trains again
    python -m benchmarks.nights resume     # a driver is killed after 1,000 trials: seconds until --resume begins one
    python -m benchmarks.nights bayesian   # 200 trials of one second on 2 cores, by Bayesian search, against the ideal
    python -m benchmarks.nights soak       # 500 trials, and every 20 s a trial, the server or the driver is killed

All jobs are started as a user starts them, in a folder of their own; what happened when is read from their journals.
`soak` prints what it found of every trial in MLflow, and ends with 1 where one of them is not as it should be.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks import machine
from benchmarks.servers import free_port, mlflow_server
from benchmarks.tables import spread, table

CORES = 2
_IN_FLIGHT = 0.2  # seconds in which a report of a killed process may still arrive


def second(config: dict[str, Any]) -> None:
    """A trial of one second."""
    from ray import tune

    time.sleep(1.0)
    tune.report({"loss": (config["x"] - 0.3) ** 2 + (config["y"] - 0.6) ** 2})


def nothing(config: dict[str, Any]) -> None:
    """A trial that reports and does nothing else."""
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


def _training(trials: int, epochs: int) -> dict[str, Any]:
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
    """A job in a folder of its own, begun again as often as one likes."""

    def __init__(self, folder: Path, spec: dict[str, Any], uri: str = "") -> None:
        self.folder = folder
        self.uri = uri or f"sqlite:///{folder}/mlflow.db"
        (folder / "night.yaml").write_text(yaml.safe_dump(spec))
        self.log = folder / "log.txt"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        """Start it, or go on with it."""
        command = [sys.executable, "-m", "tuner.run", "night.yaml", *more]
        root = str(Path(__file__).resolve().parents[1])
        environment = machine.environment() | {"MLFLOW_TRACKING_URI": self.uri, "PYTHONPATH": root}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def events(self) -> list[dict[str, Any]]:
        """Its journal so far."""
        lines = [line for path in self.folder.glob("runs/night/*/journal.jsonl") for line in path.open()]
        events = []
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):  # it is being written
                events.append(json.loads(line))
        return events

    def until(self, holds: Callable[[list[dict[str, Any]]], Any], patience: float = 300.0) -> Any:
        """Wait for something in the journal."""
        deadline = time.monotonic() + patience
        while not (found := holds(self.events())):
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            assert self.process is not None and self.process.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.1)
        return found

    def workers(self) -> list[psutil.Process]:
        """The processes that train."""
        assert self.process is not None
        found = []
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if "ImplicitFunc" in " ".join(child.cmdline()):
                        found.append(child)
        return found

    def kill(self) -> None:
        """Kill the driver, as the kernel does, and nothing beside it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def wait(self, patience: float) -> int:
        """Wait for its end."""
        assert self.process is not None
        return self.process.wait(patience)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="night-") as name:
        yield Path(name)


def recovery(options: argparse.Namespace) -> int:
    """Seconds from a kill to the next epoch that the trial reports."""
    took = []
    with _folder() as folder:
        night = Night(folder, _training(trials=2, epochs=100_000))
        night.start()
        for _ in range(options.turns):
            # Far enough for a checkpoint each, the last time's left behind.
            seen = len(night.events())
            night.until(lambda events, seen=seen: _reports(events[seen:]).keys() >= {0, 1})  # type: ignore[misc]
            killed = time.time()
            for victim in night.workers():
                victim.kill()
            since = killed + _IN_FLIGHT
            again = night.until(lambda events, at=since: _both_again(events, at))  # type: ignore[misc]
            took += [when - killed for when in again.values()]
        night.kill()
        _wait_for_end(night)
    print(table(["what", "seconds"], [["both trials killed, until each reports a new epoch", spread(took, ".1f")]]))
    return 0


def _reports(events: list[dict[str, Any]], since: float = 0.0) -> dict[int, float]:
    """When each trial reported first, since then."""
    times: dict[int, float] = {}
    for event in events:
        if event["event"] == "reported" and event["time"] > since:
            times.setdefault(event["trial"], event["time"])
    return times


def _both_again(events: list[dict[str, Any]], since: float) -> dict[int, float]:
    times = _reports(events, since)
    return times if len(times) == 2 else {}


def resume(options: argparse.Namespace) -> int:
    """Seconds from `--resume` to the first trial that it begins."""
    took, shown = [], options.trials or 1000
    for _ in range(options.turns):
        with _folder() as folder:
            night = Night(folder, _function("nothing", {"kind": options.search, "trials": shown + 200}))
            night.start()
            night.until(lambda events: len([e for e in events if e["event"] == "ended"]) >= shown, 1200)
            night.kill()
            _wait_for_end(night)
            began = time.time()
            night.start("--resume")
            night.until(lambda events, at=began: any(e["event"] == "started" and e["time"] > at for e in events))  # type: ignore[misc]
            first = min(e["time"] for e in night.events() if e["event"] == "started" and e["time"] > began)
            took.append(first - began)
            night.kill()
            _wait_for_end(night)
    what = f"--resume of a job of {shown} trials ({options.search}), until its first trial begins"
    print(table(["what", "seconds"], [[what, spread(took, ".1f")]]))
    return 0


def bayesian(options: argparse.Namespace) -> int:
    """Seconds from the first trial's beginning to the last one's end, against as many seconds of work on two cores."""
    trials, rows = options.trials or 200, []
    for _ in range(options.turns):
        with _folder() as folder:
            night = Night(folder, _function("second", {"kind": "bayesian", "trials": trials}))
            began = time.time()
            night.start()
            status = night.wait(3600)
            assert status == 0, night.log.read_text()[-3000:]
            whole = time.time() - began
            events = night.events()
            begun = min(e["time"] for e in events if e["event"] == "started")
            ended = max(e["time"] for e in events if e["event"] == "ended")
            rows.append((ended - begun, whole))
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
    return 0


def soak(options: argparse.Namespace) -> int:
    """A night with a random kill every so often; afterwards every trial and every point has to be there once."""
    trials, epochs, chance = options.trials or 500, 8, random.Random(options.seed)
    before = {process.pid for process in psutil.process_iter()}
    temporary = set(Path(tempfile.gettempdir()).iterdir())
    kills: Counter[str] = Counter()
    with _folder() as folder, contextlib.ExitStack() as servers:
        port = free_port()
        store, artifacts = f"sqlite:///{folder}/mlflow.db", folder / "artifacts"
        artifacts.mkdir()
        servers.enter_context(mlflow_server(store, artifacts, port=port))
        night = Night(folder, _training(trials, epochs), f"http://127.0.0.1:{port}")
        night.start()
        last = time.monotonic()
        began = last
        while night.process is not None and night.process.poll() is None:
            time.sleep(0.5)
            if time.monotonic() - last < options.every:
                continue
            last = time.monotonic()
            match chance.choice(["trial", "trial", "server", "driver"]):
                case "trial":
                    for victim in night.workers()[:1]:
                        victim.kill()
                        kills["trial"] += 1
                case "server":
                    servers.close()
                    kills["server"] += 1
                    time.sleep(5)
                    servers.enter_context(mlflow_server(store, artifacts, port=port))
                case "driver":
                    if any(e["event"] == "ended" for e in night.events()):
                        night.kill()
                        kills["driver"] += 1
                        _wait_for_end(night)
                        night.start("--resume")
            last = time.monotonic()
        took = time.monotonic() - began
        status = night.wait(60)
        wrong = _wrong(night, trials, epochs)
        servers.close()
        print(f"{trials} trials of {epochs} epochs in {took:.0f} s, exit status {status}; killed: {dict(kills)}")
        if status != 0:
            print(night.log.read_text()[-3000:])
    deadline = time.monotonic() + 60
    while (left := _left(before)) and time.monotonic() < deadline:
        time.sleep(1)
    wrong += [f"left over: {process}" for process in left]
    files = set(Path(tempfile.gettempdir()).glob("tuner-*")) | set(Path(tempfile.gettempdir()).glob("night-*"))
    # The lock of a store is a file that stays.
    wrong += [f"left over: {path}" for path in sorted(files - temporary) if not path.name.startswith("tuner-store-")]
    print("\n".join(wrong) or "every trial ended once, every point of every metric is there once, nothing is left over")
    return 1 if wrong or status else 0


def _left(before: set[int]) -> list[str]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if process.pid not in before and ("ray" in command or "tuner" in command):
                found.append(f"{process.pid} {command[:80]}")
    return found


def _wrong(night: Night, trials: int, epochs: int) -> list[str]:
    """What is not as it should be in MLflow and in the journal."""
    from mlflow import MlflowClient

    client = MlflowClient(night.uri)
    experiment = client.get_experiment_by_name("night")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], "tags.`tuner.role` = 'trial'", max_results=50_000)
    runs = list(found)
    wrong = []
    numbers = Counter(int(run.data.tags["tuner.trial"]) for run in runs)
    wrong += [f"trial {n} is there {numbers[n]} times" for n in range(trials) if numbers[n] != 1]
    for run in runs:
        number = run.data.tags["tuner.trial"]
        if run.info.status != "FINISHED":
            wrong.append(f"trial {number}: {run.info.status} {run.data.tags.get('tuner.reason')}")
        for metric in ("val_loss", "train_loss", "val_accuracy"):
            steps = [point.step for point in client.get_metric_history(run.info.run_id, metric)]
            if steps != list(range(1, epochs + 1)):
                wrong.append(f"trial {number}: {metric} at {steps}")
    ended = Counter(e["trial"] for e in night.events() if e["event"] == "ended" and e["status"] == "completed")
    wrong += [f"trial {n} ended {ended[n]} times" for n in range(trials) if ended[n] != 1]
    return wrong


def _wait_for_end(night: Night) -> None:
    """Until all that a killed driver has started is gone: Ray and the writer see that by themselves."""
    assert night.process is not None
    deadline = time.monotonic() + 90
    session = night.process.pid
    while time.monotonic() < deadline:
        there = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == session:
                    there.append(process)
        if not there:
            return
        time.sleep(0.2)
    for process in there:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What faults cost, and long jobs.")
    parser.add_argument("what", choices=["recovery", "resume", "bayesian", "soak"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--trials", type=int, default=0)
    parser.add_argument("--search", default="random", choices=["random", "bayesian"], help="of `resume`")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between the kills of `soak`")
    parser.add_argument("--seed", type=int, default=0, help="of the kills of `soak`")
    options = parser.parse_args()
    neighbours = machine.Neighbours()
    neighbours.look()
    status = {"recovery": recovery, "resume": resume, "bayesian": bayesian, "soak": soak}[options.what](options)
    print(f"\n{machine.facts(neighbours)}")
    sys.exit(status)


if __name__ == "__main__":
    main()
