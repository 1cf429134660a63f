"""Trials of a job, and a trial alone, that train in two processes."""

import os
import re
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import tuner

from tuner.jobs.result import OK, WRONG

pytestmark = pytest.mark.slow

JOB = """
name: shared
objective: val_loss
trial:
  data: {kind: digits, limit: 200, batch_size: 32}
  model: {kind: import, target: "MODULE:Net", args: {folder: FOLDER}}
  optimizer: {kind: sgd, lr: 0.05}
  precision: float32
  epochs: 3
space: {}
search: {kind: grid}
resources: {workers: 2, cpu: 0.5, gpu: 0}
retry: {lost: 1, out_of_memory: halve_batch}
storage: runs
tracking: {register: false}
"""

NET = """
import os
import signal
from pathlib import Path

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, folder, most=1000, kill=-1):
        super().__init__()
        self.folder, self.most, self.kill, self.batches = Path(folder), most, kill, 0
        self.layer = nn.Linear(64, 10)

    def forward(self, images):
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        if self.training and together and torch.distributed.get_rank() == 1:
            self.batches += 1
            with (self.folder / "sizes").open("a") as file:
                print(len(images), file=file)
            if len(images) > self.most:
                torch.empty(2**60, dtype=torch.uint8)
            marker = self.folder / "killed"
            if self.batches == self.kill and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return self.layer(images.flatten(1))
"""


def write(folder: Path, **arguments: Any) -> None:
    more = "".join(f", {name}: {value}" for name, value in arguments.items())
    module = f"own_{secrets.token_hex(4)}"  # what one test imports stays imported for the next
    (folder / f"{module}.py").write_text(NET)
    (folder / "job.yaml").write_text(JOB.replace("MODULE", module).replace("FOLDER", f"{folder}{more}"))


def sizes(folder: Path) -> set[str]:
    """The images that the second process has computed at once."""
    return set((folder / "sizes").read_text().split())


def numbers(said: str) -> list[str]:
    """The losses of the epochs that `tuner train` has printed."""
    return re.findall(r"val_loss ([\d.]+)", said)


@pytest.fixture
def jobs(in_one_process: None, thread_writer: None, store_made: None) -> None:
    """Jobs are run in this process; those of a job's trials that train beside the first process have their own."""


@pytest.mark.usefixtures("jobs")
def test_a_job_shares_batches_out_and_gives_the_numbers_of_one_process(tmp_path: Path) -> None:
    write(tmp_path)
    status, said = tuner(tmp_path, "run", "job.yaml")
    assert status == OK, said
    assert sizes(tmp_path) == {"16", "4"}
    status, alone = tuner(tmp_path, "train", "job.yaml", "resources={cpu: 1, gpu: 0}")
    assert status == OK, alone
    best = re.search(r"val_loss ([\d.]+) in epoch 3", said)
    assert best and best[1] == numbers(alone)[-1]


@pytest.mark.usefixtures("jobs")
def test_a_trial_of_which_a_process_is_killed_resumes(tmp_path: Path) -> None:
    write(tmp_path, kill=10)
    status, said = tuner(tmp_path, "run", "job.yaml")
    assert status == OK, said
    assert "lost its worker and resumes from epoch 1" in said and "rank 1 was ended by SIGKILL" in said
    assert "completed" in said and (tmp_path / "killed").exists()


@pytest.mark.usefixtures("jobs")
def test_memory_that_runs_out_in_another_process_halves_batches(tmp_path: Path) -> None:
    write(tmp_path, most=8)
    status, said = tuner(tmp_path, "run", "job.yaml")
    assert status == OK, said
    assert "it splits each batch into 2 micro-batches" in said
    assert sizes(tmp_path) == {"16", "8", "4"}


def test_a_trial_alone_trains_in_several_processes_too(tmp_path: Path) -> None:
    write(tmp_path)
    status, said = tuner(tmp_path, "train", "job.yaml")
    assert status == OK, said
    assert sizes(tmp_path) == {"16", "4"}
    _, alone = tuner(tmp_path, "train", "job.yaml", "resources={cpu: 1, gpu: 0}")
    assert numbers(said) == numbers(alone) != []


def test_more_than_this_machine_has_is_refused_at_once(tmp_path: Path) -> None:
    write(tmp_path)
    for command in ("train", "run"):
        status, said = tuner(tmp_path, command, "job.yaml", "resources={workers: 900, cpu: 1, gpu: 0}")
        assert status == WRONG
        assert "resources.workers: 900 processes of 1 CPU cores each are 900 cores, but there are" in said
        assert "allowed: up to" in said
    status, said = tuner(tmp_path, "train", "job.yaml", "--profile")
    assert status != OK and "a trial in several processes cannot be profiled" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_process_behind(tmp_path: Path, number: signal.Signals) -> None:
    write(tmp_path)
    command = [sys.executable, "-m", "tuner", "train", "job.yaml", "trial.epochs=100000"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith("epoch 2/") for line in process.stdout)
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= 2
        os.killpg(process.pid, number)  # as a terminal does
        process.stdout.read()
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]
    assert process.returncode != OK
