"""A job that is shipped to a cluster with tokens: the head on one host, whoever ships it on another."""

import contextlib
import json
import os
import pty
import re
import shutil
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

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

JOB = """
name: {name}
objective: val_accuracy
trial:
  data: {{kind: digits, limit: 300}}
  model: {{kind: import, target: "own_net:Net", args: {{width: 4, slow: "{place}/slow"}}}}
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
import time
from pathlib import Path

from torch import nn


class Net(nn.Sequential):
    def __init__(self, width, slow):
        super().__init__(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
        self.slow = slow

    def forward(self, images):
        if Path(self.slow).exists():
            time.sleep(0.3)
        return super().forward(images)
"""


LAPTOP = """
import contextlib
import io
import json
import os
import sys

from tuner.cli.app import main

environment = dict(os.environ)
for line in sys.stdin:
    os.environ.clear()
    os.environ.update(environment)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(json.loads(line))
            status = 0
        except SystemExit as left:
            status = left.code or 0
    print(json.dumps([status, said.getvalue()]), flush=True)
"""
"""Commands one after the other in one process: each of its own would import Ray first."""


class Cluster:
    """A head that takes jobs, and a laptop with an experiment."""

    def __init__(self, head: Host, laptop: Host, place: Path) -> None:
        self.head, self.laptop, self.place = head, laptop, place
        self.url = f"http://{head.address}:8265"
        # One host is told the token by its value, the other by a file.
        self.token = laptop.environment.pop("RAY_AUTH_TOKEN")
        file = place / "token"
        file.write_text(self.token)
        laptop.environment["RAY_AUTH_TOKEN_PATH"] = str(file)
        self.folder = place / "experiment"
        self.folder.mkdir()
        (place / "laptop.py").write_text(LAPTOP)
        # Where it prints besides goes to the log: a line is an answer here.
        self._commands = laptop.popen(
            *(sys.executable, place / "laptop.py"),
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stderr=(place / "laptop.log").open("w"),
        )

    def write(self, name: str, epochs: int = 2) -> None:
        (self.folder / f"{name}.yaml").write_text(JOB.format(name=name, epochs=epochs, place=self.place))
        (self.folder / "own_net.py").write_text(NET)
        (self.folder / ".gitignore").write_text("secret.txt\n")
        (self.folder / "secret.txt").write_text("this stays here")

    def command(self, name: str, *more: str) -> list[str]:
        return [sys.executable, "-m", "tuner", "run", f"{name}.yaml", "--submit", self.url, *more]

    def refused(self, name: str, *more: str, url: str = "") -> str:
        """What is said where nothing can be shipped."""
        command = self.command(name, *more)[3:]
        command[command.index(self.url)] = url or self.url
        assert self._commands.stdin and self._commands.stdout
        self._commands.stdin.write(f"{json.dumps(command)}\n")
        self._commands.stdin.flush()
        answer = self._commands.stdout.readline()
        assert answer, (self.place / "laptop.log").read_text()
        status, said = json.loads(answer)
        assert status == 2 and "Traceback" not in said, said
        return str(said)

    def refused_with(self, name: str, **environment: str) -> str:
        """The same with environment variables, in a process of its own: Ray reads its token once."""
        process = self.laptop.popen(*self.command(name), cwd=self.folder, env=self.laptop.environment | environment)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 2 and "Traceback" not in said, said
        return str(said)

    def arguments(self) -> bytes:
        """Of all processes on both hosts."""
        said = b""
        for pid in (*self.head.processes(), *self.laptop.processes()):
            with contextlib.suppress(OSError):  # it has ended
                said += Path(f"/proc/{pid}/cmdline").read_bytes()
        return said

    def files_with(self, secret: str) -> list[Path]:
        """Files of Ray's on the head that hold a secret: logs, and what was unpacked for jobs."""
        files = [path for path in (self.head.folder / "ray").rglob("*") if path.is_file() and not path.is_symlink()]
        assert any(path.name.startswith("job-driver-") for path in files)
        return [path for path in files if secret.encode() in path.read_bytes()]

    def trials(self, name: str) -> dict[int, str]:
        """The statuses of the trials that MLflow has of an experiment."""
        client = MlflowClient(f"sqlite:///{self.place}/mlflow.db")
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            return {}
        runs = client.search_runs([experiment.experiment_id], "tags.`tuner.role` = 'trial'")
        return {int(run.data.tags["tuner.trial"]): run.data.tags.get("tuner.status", "") for run in runs}


@pytest.fixture(scope="module")
def cluster(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    place = tmp_path_factory.mktemp("cluster")
    shutil.copy(empty_store, place / "mlflow.db")
    scripts = Path(sys.executable).parent
    with network(place / "hosts", PATH=f"{scripts}{os.pathsep}{os.environ['PATH']}") as net:
        head, laptop = net.hosts[0], net.host("laptop")
        head.start_ray("--num-cpus=2", f"--dashboard-host={head.address}")
        yield Cluster(head, laptop, place)


def test_a_job_is_shipped_and_followed_to_its_end(cluster: Cluster) -> None:
    cluster.write("whole")
    said = cluster.laptop.run(*cluster.command("whole"), cwd=cluster.folder, timeout=600)
    assert "3 files of" in said and "job whole-" in said, said  # the file, the code and the .gitignore
    assert "trial 0 completed" in said and "trial 1 completed" in said
    assert "mlflow" in said  # where the record is
    assert cluster.trials("whole") == {0: "completed", 1: "completed"}
    [job] = (cluster.place / "runs" / "whole").iterdir()
    assert (job / "journal.jsonl").is_file()


def test_ctrl_c_leaves_it_running_to_be_followed_again_stopped_and_gone_on_with(cluster: Cluster) -> None:
    cluster.write("left", epochs=50)
    (cluster.place / "slow").touch()  # each epoch takes seconds, on any machine
    controller, terminal = pty.openpty()  # so that it draws as it does for people
    process = cluster.laptop.popen(
        *cluster.command("left"), cwd=cluster.folder, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    deadline = time.monotonic() + 300
    while b"val_accuracy" not in shown or b"running" not in shown:
        assert time.monotonic() < deadline, shown
        shown += os.read(controller, 65536)
    arguments = cluster.arguments()
    assert b"--submit" in arguments and b"left.yaml" in arguments and cluster.token.encode() not in arguments
    inner = [pid for pid in cluster.laptop.processes() if b"--submit" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(inner[-1], signal.SIGINT)
    while True:
        try:
            more = os.read(controller, 65536)
        except OSError:  # the other end is closed
            break
        shown += more
    assert process.wait(300) == 130
    os.close(controller)
    assert b"Traceback" not in shown
    follow, stop = commands(shown.decode(errors="replace"))

    log = cluster.place / "followed"
    with log.open("wb") as output:
        following = cluster.laptop.popen(*follow, stdout=output)
        assert eventually(lambda: b"trial 1  epoch" in log.read_bytes(), seconds=60)
        before = log.stat().st_size
        assert eventually(lambda: log.stat().st_size > before, seconds=60)  # it goes on
        assert cluster.trials("left") == {0: "", 1: ""}  # neither has ended
        assert "stopped" in cluster.laptop.run(*stop, timeout=300)
        following.communicate(timeout=300)
    assert b"interrupted: what had finished is recorded" in log.read_bytes()
    # It had time for the end of its record.
    assert eventually(lambda: set(cluster.trials("left").values()) == {"interrupted"}, seconds=120)

    (cluster.place / "slow").unlink()
    said = cluster.laptop.run(*cluster.command("left", "--resume"), cwd=cluster.folder, timeout=600)
    assert "resuming job" in said, said
    assert cluster.trials("left") == {0: "completed", 1: "completed"}
    assert cluster.files_with(cluster.token) == [] and cluster.files_with("this stays here") == []


def commands(shown: str) -> list[list[str]]:
    """The commands that are told in the end: to follow a job, and to stop it."""
    told = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).partition("the job continues on the cluster")[2]
    lines = [
        line.partition(": ")[2].split() for line in told.splitlines() if line.strip().startswith(("follow", "stop"))
    ]
    assert [line[:3] for line in lines] == [["ray", "job", "logs"], ["ray", "job", "stop"]]
    return [[sys.executable, "-m", "ray.scripts.scripts", *line[1:]] for line in lines]


def test_code_outside_of_the_folder_is_told_and_missed_there(cluster: Cluster) -> None:
    cluster.write("outside")
    elsewhere = cluster.place / "elsewhere"
    elsewhere.mkdir()
    (cluster.folder / "own_net.py").rename(elsewhere / "own_net.py")
    path = os.pathsep.join([str(elsewhere), *filter(None, [os.environ.get("PYTHONPATH")])])
    said = cluster.refused_with("outside", PYTHONPATH=path)
    assert f"{elsewhere / 'own_net.py'} lies outside of" in said and "is not uploaded" in said
    assert "there is no module 'own_net'" in said  # as the job itself finds
    assert cluster.trials("outside") == {}


class TestWhatCannotBeShipped:
    def test_nobody_answers(self, cluster: Cluster) -> None:
        cluster.write("refused")
        said = cluster.refused("refused", url=f"http://{cluster.head.address}:8266")
        assert "no dashboard of Ray's answers" in said and "ray dashboard cluster.yaml" in said

    def test_without_a_token(self, cluster: Cluster) -> None:
        cluster.write("refused")
        said = cluster.refused_with("refused", RAY_AUTH_MODE="disabled")
        assert "it asks for a token, and was sent none" in said and "RAY_AUTH_MODE=token" in said

    def test_with_another_s_token(self, cluster: Cluster) -> None:
        cluster.write("refused")
        assert "refuses the token" in cluster.refused_with("refused", RAY_AUTH_TOKEN="0" * 32)

    def test_what_would_be_gone_with_the_job(self, cluster: Cluster) -> None:
        cluster.write("refused")
        said = cluster.refused("refused", "storage=runs", "tracking.uri=sqlite:///mlflow.db")
        assert "runs is relative" in said and "mlflow.db is relative" in said

    def test_a_password_on_the_command_line(self, cluster: Cluster) -> None:
        cluster.write("refused")
        said = cluster.refused("refused", "tracking.uri=http://me:sesame@10.77.0.1:5000")
        assert "all users of the head" in said and "sesame" not in said

    def test_with_an_address_of_something_else(self, cluster: Cluster) -> None:
        cluster.write("refused")
        assert "is no address of a dashboard" in cluster.refused("refused", url="auto")

    @pytest.mark.parametrize("page", ["/#/jobs", "/?page=jobs"])
    def test_with_the_address_of_a_page(self, cluster: Cluster, page: str) -> None:
        cluster.write("refused")
        assert "is no address of a dashboard" in cluster.refused("refused", url=f"{cluster.url}{page}")

    def test_with_a_password_in_the_address(self, cluster: Cluster) -> None:
        cluster.write("refused")
        said = cluster.refused("refused", url=cluster.url.replace("//", "//me:sesame@"))
        assert "must not contain a user name or password" in said and "sesame" not in said

    def test_with_encryption_that_is_not_there(self, cluster: Cluster) -> None:
        cluster.write("refused")
        said = cluster.refused("refused", url=cluster.url.replace("http", "https"))
        assert "does not speak https" in said and f"write {cluster.url}" in said

    def test_to_another_port_of_ray_s(self, cluster: Cluster) -> None:
        cluster.write("refused")
        assert "something else" in cluster.refused("refused", url=f"http://{cluster.head.ray_address}")

    def test_code_that_git_ignores(self, cluster: Cluster) -> None:
        cluster.write("refused")
        (cluster.folder / ".gitignore").write_text("own_*.py\n")
        assert "trials need own_net.py, which would not be uploaded" in cluster.refused("refused")

    def test_a_file_that_git_ignores(self, cluster: Cluster) -> None:
        cluster.write("hidden")
        (cluster.folder / ".gitignore").write_text("hidden.yaml\n")
        said = cluster.refused("hidden")
        assert "the file would not be uploaded" in said
