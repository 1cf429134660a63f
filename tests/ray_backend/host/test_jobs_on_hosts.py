"""Whole jobs on a real Ray whose trials share a host, as they do on a GPU; here it computes on the CPU."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from commands import tuner
from moments import held_when
from thread_writers import thread_writers

from tuner.jobs.result import INTERRUPTED, OK
from tuner.ray_backend.cluster import resources
from tuner.ray_backend.internals import internal
from tuner.train.checkpoint import read_state
from tuner.trials.layout import RESUMED

pytestmark = pytest.mark.slow

JOB = """
name: hosted
objective: val_accuracy
trial: {data: {kind: digits, limit: 600}, model: {kind: cnn, hidden: 32, dropout: 0.2}, epochs: EPOCHS}
space: {optimizer.lr: {loguniform: [0.003, 0.03]}, optimizer.kind: {choice: [sgd, adam]}}
search: {kind: random, trials: 4}
resources: {cpu: 0.5, gpu: 0}
tracking: {register: false}
"""

AS_ON_A_GPU = """
import sys
from dataclasses import replace
from tuner.ray_backend.cluster import resources

share = resources.share
resources.share = lambda *given, **named: replace(share(*given, **named), is_hosted=True)

from tuner.cli.app import console

sys.argv.insert(1, "run")
console()
"""


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are hosted as if they shared a GPU."""
    share = resources.share
    monkeypatch.setattr(resources, "share", lambda *given, **named: replace(share(*given, **named), is_hosted=True))


def hosts(session: Path) -> list[psutil.Process]:
    """The hosts of a Ray whose session folder is, or is in, a folder: those that listen there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            sockets = [str(each.laddr) for each in process.net_connections("unix") if each.status == "NONE"]
            if any(each.startswith(str(session)) and "/host-" in each for each in sockets):
                found.append(process)
    return found


@pytest.fixture
def rays() -> Iterator[Path]:
    """A folder for Rays, whose path is short enough for their sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="rays") as folder:
        yield Path(folder)


def weights(folder: Path) -> dict[str, dict[str, Any]]:
    """The weights of the last checkpoint of each trial of the only job, by the trial's first folder."""
    (job,) = folder.glob("runs/hosted/2*")
    last = {each.parent.name.partition(RESUMED)[0]: each for each in sorted(job.glob("trial-*/checkpoint_*"))}
    return {name: read_state(each)[0] for name, each in last.items()}


def run(folder: Path, job: str, *arguments: str) -> tuple[int, str]:
    folder.mkdir(exist_ok=True)
    (folder / "job.yaml").write_text(job)
    with thread_writers():
        return tuner(folder, "run", "job.yaml", *arguments, COLUMNS="300")


def same(one: Path, other: Path) -> bool:
    pairs = weights(one), weights(other)
    assert pairs[0].keys() == pairs[1].keys() and pairs[0]
    return all(torch.equal(each, pairs[1][trial][name]) for trial in pairs[0] for name, each in pairs[0][trial].items())


@pytest.fixture(scope="module")
def apart(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job whose trials have a process each."""
    folder = tmp_path_factory.mktemp("apart")
    status, said = run(folder, JOB.replace("EPOCHS", "3"))
    assert status == OK, said
    return folder


def test_a_proxy_imports_no_torch() -> None:
    code = "import sys, tuner.ray_backend.host.proxy; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_job_gives_the_numbers_of_processes_of_their_own(apart: Path, as_on_a_gpu: None, tmp_path: Path) -> None:
    status, said = run(tmp_path, JOB.replace("EPOCHS", "3"))
    assert status == OK and said.count("completed") >= 4, said
    assert same(tmp_path, apart)


def test_a_host_that_is_killed_costs_its_trials_what_they_trained_since_their_checkpoints(
    one_ray: None, as_on_a_gpu: None, tmp_path: Path
) -> None:
    done, killed = threading.Event(), list[int]()
    session = Path(internal("worker")._global_node.get_session_dir_path())
    earlier = {each.pid for each in hosts(session)}  # that of a job before this one, which is about to end

    def kill() -> None:
        while not done.wait(0.02):
            journals = list(tmp_path.glob("runs/hosted/*/journal.jsonl"))
            if journals and journals[0].read_text().count('"reported"') >= 3:
                for host in hosts(session):
                    if host.pid not in earlier:
                        killed.append(host.pid)
                        host.kill()
                return

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        status, said = run(tmp_path, JOB.replace("EPOCHS", "30"))
    finally:
        done.set()
        thread.join()
    assert status == OK and len(killed) == 1, said
    assert "lost" in said and said.count("completed") >= 4
    (journal,) = tmp_path.glob("runs/hosted/*/journal.jsonl")
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    last = {each["trial"]: each["report"]["epoch"] for each in events if each["event"] == "reported"}
    assert last == dict.fromkeys(range(4), 30)


@pytest.mark.parametrize(
    "scheduler",
    [
        "{kind: asha, grace: 1}",
        "{kind: hyperband}",
        "{kind: pbt, interval: 1}",
    ],
)
def test_schedulers_stop_pause_and_change_them(
    one_ray: None, as_on_a_gpu: None, tmp_path: Path, scheduler: str
) -> None:
    job = JOB.replace("EPOCHS", "4").replace(", optimizer.kind: {choice: [sgd, adam]}", "")
    status, said = run(tmp_path, f"{job}scheduler: {scheduler}\n")
    assert status == OK, said
    (journal,) = tmp_path.glob("runs/hosted/*/journal.jsonl")
    ended = [json.loads(line) for line in journal.read_text().splitlines() if '"ended"' in line]
    assert len({each["trial"] for each in ended}) == 4
    assert {each["status"] for each in ended} <= {"completed", "pruned"}, said


@pytest.mark.usefixtures("store_made")
def test_an_interrupted_job_goes_on_and_its_host_ends(apart: Path, rays: Path, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB.replace("EPOCHS", "3"))
    (tmp_path / "run.py").write_text(AS_ON_A_GPU)
    command = [sys.executable, "run.py", "job.yaml"]
    environment = os.environ | {"RAY_TMPDIR": str(rays)}
    named: dict[str, Any] = {
        "cwd": tmp_path,
        "env": environment,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }
    process = subprocess.Popen(command, **named)
    try:
        with held_when(process, lambda: _is_in_its_first_trials(tmp_path)):
            process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == INTERRUPTED, said
    _wait(lambda: not hosts(rays))
    done = subprocess.run([*command, "--resume"], check=False, **named)
    assert done.returncode == OK, done.stdout
    _wait(lambda: not hosts(rays))
    assert "Traceback" not in said + done.stdout
    assert same(tmp_path, apart)


def test_a_host_ends_with_its_driver(rays: Path, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB.replace("EPOCHS", "5000"))
    (tmp_path / "run.py").write_text(AS_ON_A_GPU)
    with (tmp_path / "said").open("w") as said:
        environment = os.environ | {"RAY_TMPDIR": str(rays)}
        command = [sys.executable, "run.py", "job.yaml"]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=said, stderr=subprocess.STDOUT)
    try:
        _wait(lambda: any('"reported"' in each.read_text() for each in tmp_path.glob("runs/hosted/*/journal.jsonl")))
        assert hosts(rays)
    finally:
        process.kill()
        process.wait()
    _wait(lambda: not hosts(rays))


def _is_in_its_first_trials(folder: Path) -> bool:
    """A trial has reported, and none has ended."""
    journals = [each.read_text() for each in folder.glob("runs/hosted/*/journal.jsonl")]
    return any('"reported"' in each and '"ended"' not in each for each in journals)


def _wait(is_so: Any, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)
