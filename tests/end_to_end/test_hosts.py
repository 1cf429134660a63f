"""Jobs over several hosts that fail as hosts do: the power goes, a cable is cut, one is taken away, the head dies."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import eventually
from hosts import SOON, Host, Network, network
from mlflow import MlflowClient

from tuner.jobs.result import OK

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.usefixtures("store_made")]

JOB = """
name: faults
objective: {{metric: total, mode: max}}
trial: {{target: "own_steps:train", config: {{place: "{folder}", x: 0}}}}
space:
  config.x: {{grid: [{values}]}}
search: {{kind: grid}}
resources: {{cpu: 1, gpu: 0}}
retry: {{lost: {lost}}}
storage: runs
tracking: {{uri: "sqlite:///{folder}/mlflow.db"}}
"""

OWN_PY = """
import itertools
import json
import socket
import tempfile
import time
from pathlib import Path

from ray import tune


def train(config):
    place, host = Path(config["place"]), socket.gethostname()
    checkpoint = tune.get_checkpoint()
    state = json.loads((Path(checkpoint.path) / "state").read_text()) if checkpoint else {"step": 0, "total": 0}
    for step in itertools.count(state["step"] + 1):
        time.sleep(0.2)
        with (place / "trained").open("a") as trained:
            trained.write(json.dumps({"x": config["x"], "step": step, "host": host, "time": time.time()}) + "\\n")
        while (place / f"hold-{host}-{step}").exists():
            time.sleep(0.05)
        state = {"step": step, "total": state["total"] + step, "host": host}
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "state").write_text(json.dumps(state))
            report = {"total": state["total"], "on": int(host[4:])}
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))
        if (place / "finish").exists() and step > 4:
            return
"""
"""Trials that train until they are told to finish. What each does hangs on all that it did before."""


class Job:
    """A job in a folder of its own, which all hosts see. It runs on the cluster's head."""

    def __init__(self, head: Host, folder: Path, *, trials: int = 2, lost: int = 3) -> None:
        self.head = head
        self.folder = folder
        values = ", ".join(map(str, range(trials)))
        (folder / "job.yaml").write_text(JOB.format(folder=folder, values=values, lost=lost))
        (folder / "own_steps.py").write_text(OWN_PY)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """The command, as somebody would type it."""
        command = [sys.executable, "-m", "tuner", "run", "job.yaml", "--address", self.head.ray_address, *arguments]
        with (self.folder / "said").open("a") as output:
            return self.head.popen(*command, cwd=self.folder, stdout=output)

    def finish(self, process: "subprocess.Popen[str]") -> None:
        """Tell its trials to finish, and see it end as it should."""
        (self.folder / "finish").touch()
        assert process.wait(300) == OK, self.said

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    def wait(self, holds: Callable[[], bool]) -> None:
        assert eventually(holds, 300), self.said

    def trained(self, trial: int, host: Host | None = None) -> list[int]:
        """Steps of a trial in the order in which they were begun: on one host, or wherever."""
        path = self.folder / "trained"
        begun = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [each["step"] for each in begun if each["x"] == trial and (host is None or each["host"] == host.name)]

    def history(self, trial: int, metric: str) -> dict[int, float]:
        """A metric by step, as it is recorded; each step once."""
        [run] = [run for run in self.runs(finished=False) if run.data.tags["tuner.trial"] == str(trial)]
        points = MlflowClient(f"sqlite:///{self.folder}/mlflow.db").get_metric_history(run.info.run_id, metric)
        assert [point.step for point in points] == list(range(1, len(points) + 1))
        return {point.step: point.value for point in points}

    def runs(self, *, finished: bool = True) -> list[Any]:
        """The run of each trial, each finished where that is asked for."""
        client = MlflowClient(f"sqlite:///{self.folder}/mlflow.db")
        experiment = client.get_experiment_by_name("faults")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id], "tags.`tuner.role` = 'trial'")
        assert not finished or {run.info.status for run in runs} == {"FINISHED"}
        return list(runs)

    def check(self, trial: int) -> None:
        """Its record is that of a trial that nothing had happened to."""
        totals = self.history(trial, "total")
        assert totals == {step: step * (step + 1) / 2 for step in totals}, trial

    def checkpoints(self) -> dict[Path, dict[str, Any]]:
        """What is in each checkpoint that is there."""
        found = self.folder.glob("runs/faults/*/trial-*/checkpoint_*/state")
        return {path: json.loads(path.read_text()) for path in found}


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[Network, Host]]:
    """Hosts, and a head that trains nothing."""
    with network(folder, **SOON) as net:
        head = net.host("head")
        head.start_ray("--num-cpus=0")
        yield net, head


def take_away(host: Host, head: Host) -> None:
    """Machines that cost less are taken away like this: it is said, and a little later the power goes."""
    who = "import ray; ray.init(address='auto', log_to_driver=False); print(ray.get_runtime_context().get_node_id())"
    node = host.run(sys.executable, "-c", who).split()[-1]
    why = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--deadline-remaining-seconds", "1"]
    command = ["drain-node", "--address", head.ray_address, "--node-id", node, *why]
    head.run(sys.executable, "-m", "ray.scripts.scripts", *command)
    time.sleep(1.5)
    host.kill()


@pytest.fixture(scope="module")
def with_a_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Network, Host]]:
    with cluster(tmp_path_factory.mktemp("hosts") / "hosts") as made:
        yield made


@pytest.fixture
def hosts(with_a_head: tuple[Network, Host]) -> Iterator[tuple[Network, Host]]:
    """Hosts, and a head that trains nothing: the same for all tests, and no other is there at first."""
    net, head = with_a_head
    yield net, head
    for host in net.hosts:
        if host is not head:
            host.kill()
    time.sleep(4)  # the head finds out by then: see SOON


@pytest.mark.parametrize("fault", ["power", "cable", "taken away"])
def test_a_host_that_joins_is_used_and_one_that_is_lost_is_done_without(
    hosts: tuple[Network, Host], tmp_path: Path, fault: str
) -> None:
    net, head = hosts
    job = Job(head, tmp_path, lost=0 if fault == "taken away" else 1)
    first = net.worker(head)
    process = job.start()
    job.wait(lambda: len(job.trained(0, first)) > 2)
    assert not job.trained(1)  # there is no room
    late = net.worker(head, cores=2)
    job.wait(lambda: len(job.trained(1, late)) > 2)
    if fault == "taken away":
        take_away(first, head)
    else:
        first.kill() if fault == "power" else first.cut()
    # What the first host had reported stays in the record: the other one trains beyond it.
    job.wait(lambda: max(job.trained(0, late), default=0) > max(job.trained(0, first)))
    job.finish(process)
    assert len(job.runs()) == 2
    for trial in range(2):
        job.check(trial)
    steps = job.trained(1)
    assert steps == list(range(1, len(steps) + 1))  # the other one's trial goes on as if nothing had been
    [last] = re.findall(r"trial 0 lost its worker and resumes from epoch (\d+)", job.said)
    assert job.trained(0, late)[0] == int(last) + 1  # right behind its latest checkpoint
    where = job.history(0, "on")
    assert {step for step, number in where.items() if f"host{number:g}" == first.name} >= set(range(1, int(last) + 1))
    assert f"host{where[len(where)]:g}" == late.name


def test_a_host_that_joins_and_does_not_see_the_storage_fails_its_trials(
    hosts: tuple[Network, Host], tmp_path: Path
) -> None:
    net, head = hosts
    job = Job(head, tmp_path)
    net.worker(head)
    process = job.start()
    job.wait(lambda: len(job.trained(0)) > 0)
    odd = net.host("host9")
    odd.hide(tmp_path / "runs")
    odd.start_ray("--num-cpus=1", head=head)
    job.wait(lambda: "trial 1 failed" in job.said)
    job.finish(process)
    assert "Unable to set up cluster storage" in job.said
    runs = {run.data.tags["tuner.trial"]: run for run in job.runs(finished=False)}
    assert {number: run.info.status for number, run in runs.items()} == {"0": "FINISHED", "1": "FAILED"}
    assert runs["1"].data.tags["tuner.host"] == "host9"
    job.check(0)


def test_a_trial_that_lives_on_where_nobody_reaches_it_harms_nothing(
    hosts: tuple[Network, Host], tmp_path: Path
) -> None:
    def hold(host: Host, step: int, on: bool = True) -> None:
        path = tmp_path / f"hold-{host.name}-{step}"
        path.touch() if on else path.unlink()

    def saved(checkpoints: dict[Path, dict[str, Any]]) -> set[tuple[int, str]]:
        return {(state["step"], state["host"]) for state in checkpoints.values()}

    net, head = hosts
    job = Job(head, tmp_path, trials=1)
    first = net.worker(head)
    hold(first, step=4)
    process = job.start()
    job.wait(lambda: 4 in job.trained(0, first))
    first.cut()
    there = net.worker(head)
    hold(there, step=5)
    job.wait(lambda: 5 in job.trained(0, there))
    before = job.checkpoints()
    assert (4, there.name) in saved(before)  # both have trained the same step, and one has not saved it
    hold(first, step=4, on=False)
    job.wait(lambda: (4, first.name) in saved(job.checkpoints()))
    after = job.checkpoints()
    assert {path: after.get(path) for path in before} == before  # what was there is as it was
    hold(there, step=5, on=False)
    job.wait(lambda: 8 in job.trained(0, there))
    assert 5 not in job.trained(0, first)  # nobody asks it for more
    job.finish(process)
    job.check(0)
    [state] = job.checkpoints().values()  # nothing that it wrote is left
    assert state["host"] == there.name


def test_when_the_head_is_lost_the_job_is_resumed_on_another(tmp_path: Path) -> None:
    with cluster(tmp_path / "hosts") as (net, head):
        job = Job(head, tmp_path, trials=3)
        first = net.worker(head, cores=2)
        job.start()
        job.wait(lambda: min(len(job.trained(0)), len(job.trained(1))) > 2)
        head.kill()
        again = net.host("again")
        again.start_ray("--num-cpus=0")
        there = net.worker(again, cores=2)
        job.head = again
        process = job.start("--resume")
        job.wait(lambda: len(job.trained(0, there)) > 0)
        assert first.processes()  # nobody has told it that its head is gone
        job.finish(process)
        assert len(job.runs()) == 3
        for trial in range(3):
            job.check(trial)


def test_nothing_is_left_of_the_hosts(tmp_path: Path) -> None:
    with network(tmp_path / "hosts") as net:
        host = net.host("host")
        process = host.popen("sleep", "1000")
        eventually(lambda: len(host.processes()) == 1)
    assert process.wait(10) != 0
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert net.name not in spaces
