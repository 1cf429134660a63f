"""Kills parts of a running job repeatedly, and checks that every trial and every point of its curves is recorded.

    python -m benchmarks.soak    # 500 trials; every 20 s a trial, a host, the MLflow server or the driver is killed

The cluster has a head node with the driver and the server, and two worker nodes of one core each, in network namespaces
(Linux, root). It prints the errors that it finds in MLflow, and exits with status 1 if there are any.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from benchmarks import machine
from benchmarks.hosts import SOON, Host, Network, network
from benchmarks.nights import Night, training

EPOCHS = 8
METRICS = ("train_loss", "val_loss", "val_accuracy")
FAULTS = ("trial", "trial", "host", "server", "driver")
"""What is killed, with equal probability for each item: two of five kills are trials."""
_PORT = 5000
_LOCK_PREFIX = "tuner-store-"  # prefix of the lock files of stores, which are not deleted
_SHOWN = 20  # errors that are printed
_DOWNTIME = 5.0  # seconds until a killed server or host is replaced


class Server:
    """The MLflow server on the head node."""

    def __init__(self, head: Host, folder: Path) -> None:
        self._head = head
        self._folder = folder
        (folder / "artifacts").mkdir()
        self.uri = f"http://127.0.0.1:{_PORT}"
        self.store = f"sqlite:///{folder}/mlflow.db"
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = ["--backend-store-uri", self.store, "--artifacts-destination", str(self._folder / "artifacts")]
        where = ["--host", "127.0.0.1", "--port", str(_PORT), "--workers", "2"]
        with (self._folder / "server.txt").open("a") as log:
            self._process = self._head.popen(
                *(sys.executable, "-m", "mlflow", "server", *options, *where),
                cwd=self._folder,
                stdout=log,
                start_new_session=True,  # so that its workers end with it
            )
        ask = f"import urllib.request; urllib.request.urlopen('{self.uri}/health', timeout=5)"
        deadline = time.monotonic() + 90
        while self._head.popen(sys.executable, "-c", ask, stdout=subprocess.DEVNULL).wait() != 0:
            assert time.monotonic() < deadline, "MLflow's server does not come up"
            time.sleep(0.5)

    def kill(self) -> None:
        """Kill the server and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Cluster:
    """Two worker nodes; a killed one is replaced."""

    def __init__(self, net: Network, head: Host) -> None:
        self._net = net
        self._head = head
        self.workers = [net.worker(head) for _ in range(2)]

    def kill_host(self, number: int) -> None:
        """Kill a worker node, and add another."""
        self.workers[number].kill()
        time.sleep(_DOWNTIME)
        self.workers[number] = self._net.worker(self._head)

    def trials(self) -> list[psutil.Process]:
        """Return the worker processes that run trials."""
        return [process for host in self.workers for process in host.trials()]


def soak(trials: int, every: float, seed: int) -> list[str]:
    """Run the job with a kill every so many seconds, and return the errors found afterwards."""
    rng, kills = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="night-") as name, network(Path(name, "hosts"), **SOON) as net:
        folder = Path(name)
        head = net.host("head")
        head.start_ray("--num-cpus=0")
        cluster, server = Cluster(net, head), Server(head, folder)

        night = Night(folder, training(trials, EPOCHS), server.uri, popen=head.driver)
        night.start()
        began = last = time.monotonic()
        while night.process is not None and night.process.poll() is None:
            time.sleep(0.5)
            if time.monotonic() - last < every:
                continue
            last, fault = time.monotonic(), rng.choice(FAULTS)
            match fault:
                case "trial":
                    victims = cluster.trials()[:1]
                    if not victims:
                        continue  # no trial runs
                    victims[0].kill()
                case "host":
                    cluster.kill_host(rng.randrange(2))
                case "server":
                    server.kill()
                    time.sleep(_DOWNTIME)
                    server.start()
                case "driver":
                    if not any(event["event"] == "ended" for event in night.events()):
                        continue  # no trial has ended, so there is nothing to resume
                    night.kill()
                    night.start("--resume")
            kills[fault] += 1
        took, status = time.monotonic() - began, night.wait(60)
        last_lines = night.log.read_text().rpartition("Leaderboard")[2]
        # The driver was killed while the end of its job was recorded: no trial is left to resume.
        is_through = "has finished its" in last_lines
        is_behind = "tuner sync" in last_lines
        if is_behind:  # the server was down at the end, or the driver killed: do as the message says
            head.run(
                *(sys.executable, "-m", "tuner", "sync", "night.yaml"),
                cwd=folder,
                env=machine.environment() | head.environment | {"MLFLOW_TRACKING_URI": server.uri},
                timeout=300,
            )
        server.kill()
        errors = _recorded_errors(night, server.store, trials)
        for host in (head, *cluster.workers):
            errors += [
                f"left over: {path}" for path in (host.folder / "tmp").iterdir() if path.name.startswith("tuner-")
            ]
        shown = ", ".join(f"{count} x {what}" for what, count in sorted(kills.items()))
        print(f"{trials} trials of {EPOCHS} epochs in {took:.0f} s, exit status {status}; killed: {shown}")
        if is_behind:
            print("the server was away when the job ended, or its driver killed then: `tuner sync` made up for it")
        if status != 0 and not is_through:
            errors.insert(0, f"exit status {status}: {night.log.read_text()[-3000:]}")
    return errors


def _recorded_errors(night: Night, store: str, trials: int) -> list[str]:
    """Return the errors in MLflow and in the journal."""
    from mlflow import MlflowClient

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("night")
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id], "tags.`tuner.role` = 'trial'", max_results=50_000))
    numbers = Counter(int(run.data.tags["tuner.trial"]) for run in runs)
    errors = [f"trial {n} is there {numbers[n]} times" for n in range(trials) if numbers[n] != 1]
    for run in runs:
        number = run.data.tags["tuner.trial"]
        if run.info.status != "FINISHED":
            errors.append(f"trial {number}: {run.info.status} {run.data.tags.get('tuner.reason')}")
        for metric in METRICS:
            steps = [point.step for point in client.get_metric_history(run.info.run_id, metric)]
            if steps != list(range(1, EPOCHS + 1)):
                errors.append(f"trial {number}: {metric} at {steps}")
    ended = Counter(e["trial"] for e in night.events() if e["event"] == "ended" and e["status"] == "completed")
    return errors + [f"trial {n} ended {ended[n]} times" for n in range(trials) if ended[n] != 1]


def _processes(before: set[int]) -> list[str]:
    """Return the processes of tuner, Ray and MLflow whose ids are not in `before`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if process.pid not in before and any(word in command for word in ("ray", "tuner", "mlflow")):
                found.append(f"{process.pid} {command[:80]}")
    return found


def _files() -> set[Path]:
    """Return the temporary files of tuner and of this benchmark."""
    found = {path for pattern in ("tuner-*", "night-*") for path in Path(tempfile.gettempdir()).glob(pattern)}
    return {path for path in found if not path.name.startswith(_LOCK_PREFIX)}


def main() -> None:
    """Run the job with kills, check its record, and print the errors."""
    parser = argparse.ArgumentParser(description="A night in which everything fails that can.")
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    options = parser.parse_args()
    neighbours = machine.Neighbours()
    neighbours.look()
    processes, files = {process.pid for process in psutil.process_iter()}, _files()
    errors = soak(options.trials, options.every, options.seed)
    deadline = time.monotonic() + 60
    while (left := _processes(processes)) and time.monotonic() < deadline:
        time.sleep(1)
    errors += [f"left over: {each}" for each in (*left, *sorted(map(str, _files() - files)))]
    if len(errors) > _SHOWN:
        errors[_SHOWN:] = [f"and {len(errors) - _SHOWN} more"]
    print(
        "\n".join(errors) or "every trial ended once, every point of every metric is there once, nothing is left over"
    )
    print(f"\n{machine.facts(neighbours)}")
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
