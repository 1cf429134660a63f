"""A job that is shipped to a cluster with tokens: the head on one host, whoever ships it on another."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import eventually
from hosts import Host, network
from mlflow import MlflowClient

JOB = """
name: {name}
objective: val_accuracy
trial:
  data: {{kind: digits, limit: 300}}
  model: {{kind: import, target: "own_net:Net", args: {{width: 4}}}}
  optimizer: {{kind: sgd, lr: 0.1}}
  epochs: {epochs}
space:
  optimizer.lr: {{grid: [0.1, 0.01]}}
search: {{kind: grid}}
resources: {{cpu: 1}}
storage: {place}/runs
tracking: {{uri: "sqlite:///{place}/mlflow.db"}}
"""

NET = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self, width):
        super().__init__(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
"""


class Cluster:
    """A head that takes jobs, and a laptop with an experiment."""

    def __init__(self, head: Host, laptop: Host, place: Path) -> None:
        self.head, self.laptop, self.place = head, laptop, place
        self.url = f"http://{head.address}:8265"
        self.folder = place / "experiment"

    def write(self, name: str, epochs: int = 2) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / f"{name}.yaml").write_text(JOB.format(name=name, epochs=epochs, place=self.place))
        (self.folder / "own_net.py").write_text(NET)
        (self.folder / ".gitignore").write_text("secret.txt\n")
        (self.folder / "secret.txt").write_text("this stays here")

    def command(self, name: str, *more: str) -> list[str]:
        return [sys.executable, "-m", "tuner", "run", f"{name}.yaml", "--submit", self.url, *more]

    def refused(self, name: str, *more: str, url: str = "", **environment: str) -> str:
        """What is said where nothing can be shipped."""
        command = self.command(name, *more)
        command[command.index(self.url)] = url or self.url
        process = self.laptop.popen(*command, cwd=self.folder, env=self.laptop.environment | environment)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 2 and "Traceback" not in said, said
        return str(said)

    def trials(self, name: str) -> dict[int, str]:
        """The statuses of the trials that MLflow has of an experiment."""
        client = MlflowClient(f"sqlite:///{self.place}/mlflow.db")
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            return {}
        runs = client.search_runs([experiment.experiment_id], "tags.`tuner.role` = 'trial'")
        return {int(run.data.tags["tuner.trial"]): run.data.tags.get("tuner.status", "") for run in runs}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    place = tmp_path_factory.mktemp("cluster")
    scripts = Path(sys.executable).parent
    with network(place / "hosts", PATH=f"{scripts}{os.pathsep}{os.environ['PATH']}") as net:
        head, laptop = net.hosts[0], net.host("laptop")
        head.start_ray("--num-cpus=2", f"--dashboard-host={head.address}")
        yield Cluster(head, laptop, place)


def test_a_job_is_shipped_and_followed_to_its_end(cluster: Cluster) -> None:
    cluster.write("whole")
    said = cluster.laptop.run(*cluster.command("whole"), cwd=cluster.folder, timeout=300)
    assert "3 files of" in said and "job whole-" in said, said  # the file, the code and the .gitignore
    assert "trial 0 completed" in said and "trial 1 completed" in said
    assert "mlflow" in said  # where the record is
    assert cluster.trials("whole") == {0: "completed", 1: "completed"}
    [job] = (cluster.place / "runs" / "whole").iterdir()
    assert (job / "journal.jsonl").is_file()


def test_ctrl_c_leaves_it_running_and_says_how_to_follow_and_stop_it(cluster: Cluster) -> None:
    cluster.write("left", epochs=400)
    controller, terminal = pty.openpty()  # so that it draws as it does for people
    process = cluster.laptop.popen(
        *cluster.command("left"), cwd=cluster.folder, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    deadline = time.monotonic() + 240
    while b"val_accuracy" not in shown or b"running" not in shown:
        assert time.monotonic() < deadline, shown
        shown += os.read(controller, 65536)
    inner = [pid for pid in cluster.laptop.processes() if b"--submit" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(inner[-1], signal.SIGINT)
    while True:
        try:
            more = os.read(controller, 65536)
        except OSError:  # the other end is closed
            break
        shown += more
    assert process.wait(60) == 130
    os.close(controller)
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(errors="replace")).partition(
        "the job goes on without us"
    )[2]
    follow, stop = (
        next(line.partition(": ")[2].split() for line in last.splitlines() if line.strip().startswith(word))
        for word in ("follow it", "stop it")
    )
    assert b"Traceback" not in shown
    job = follow[-3]
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    following = cluster.laptop.popen(*ray, *follow[1:], stdout=subprocess.PIPE)
    assert cluster.trials("left").keys() >= {0}  # it goes on
    assert "stopped" in cluster.laptop.run(*ray, *stop[1:], timeout=200)
    following.communicate(timeout=60)
    assert job.startswith("left-")
    # It had time for the end of its record.
    assert eventually(lambda: set(cluster.trials("left").values()) == {"interrupted"}, seconds=120)


class TestWhatCannotBeShipped:
    def test_nobody_answers(self, cluster: Cluster) -> None:
        cluster.write("refused")
        said = cluster.refused("refused", url=f"http://{cluster.head.address}:8266")
        assert "no dashboard of Ray's answers" in said and "ray dashboard cluster.yaml" in said

    def test_without_a_token(self, cluster: Cluster) -> None:
        cluster.write("refused")
        said = cluster.refused("refused", RAY_AUTH_MODE="disabled")
        assert "it asks for a token, and was sent none" in said and "RAY_AUTH_MODE=token" in said

    def test_with_another_s_token(self, cluster: Cluster) -> None:
        cluster.write("refused")
        assert "refuses the token" in cluster.refused("refused", RAY_AUTH_TOKEN="0" * 32)

    def test_what_would_be_gone_with_the_job(self, cluster: Cluster) -> None:
        cluster.write("refused")
        said = cluster.refused("refused", "storage=runs", "tracking.uri=sqlite:///mlflow.db")
        assert "runs is relative" in said and "mlflow.db is relative" in said

    def test_a_password_on_the_command_line(self, cluster: Cluster) -> None:
        cluster.write("refused")
        said = cluster.refused("refused", "tracking.uri=http://me:sesame@10.77.0.1:5000")
        assert "is seen by all users of the head" in said and "sesame" not in said

    def test_with_an_address_of_something_else(self, cluster: Cluster) -> None:
        cluster.write("refused")
        assert "is no address of a dashboard" in cluster.refused("refused", url="auto")

    def test_a_file_that_git_ignores(self, cluster: Cluster) -> None:
        cluster.write("hidden")
        (cluster.folder / ".gitignore").write_text("hidden.yaml\n")
        said = cluster.refused("hidden")
        assert "the file is among what stays here" in said
