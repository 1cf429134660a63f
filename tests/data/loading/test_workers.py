"""The processes that decode: how they end."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import photos
import psutil
import pytest
import torch

from tuner.data.loading import workers
from tuner.data.loading.source import LoaderResources
from tuner.errors import UserError

CPU = torch.device("cpu")

SCRIPT = """
import multiprocessing, sys, time, torch
from pathlib import Path
import photos
from tuner.data.loading.source import LoaderResources

# No "if __name__": a script that a worker imports again would never end.
with photos.read(Path(sys.argv[1]), cache="none").opened(torch.device("cpu"), LoaderResources(2)) as (train, _):
    next(train.batches(2, 0))
    print("pids", *[each.pid for each in multiprocessing.active_children()], flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_they_end_with_the_trial_that_failed_amid_an_epoch(tmp_path: Path) -> None:
    data = photos.read(photos.write(tmp_path / "photos"), cache="none")
    with pytest.raises(SystemExit), data.opened(CPU, LoaderResources(2)) as (train, _):
        batches = train.batches(4, 0)
        next(batches)
        assert len(multiprocessing.active_children()) == 2
        raise SystemExit
    assert not multiprocessing.active_children()
    assert batches is not None, "even if something refers to the batches"


@pytest.mark.slow  # it takes torch five seconds to look
def test_a_worker_that_is_killed_fails_the_trial(tmp_path: Path) -> None:
    data = photos.read(photos.write(tmp_path / "photos"), cache="none")
    with (
        pytest.raises(UserError, match="a process that decodes images for this trial was ended by SIGKILL") as error,
        data.opened(CPU, LoaderResources(1)) as (train, _),
    ):
        batches = train.batches(1, 0)
        next(batches)
        [worker] = multiprocessing.active_children()
        assert worker.pid
        os.kill(worker.pid, signal.SIGKILL)
        list(batches)
    assert "let fewer trials run at once" in error.value.problems[0].hint
    assert not multiprocessing.active_children()


@pytest.mark.slow  # a process imports torch
def test_they_end_with_a_process_that_is_killed(tmp_path: Path) -> None:
    folder = photos.write(tmp_path / "photos")
    path = os.pathsep.join([str(Path(photos.__file__).parent), os.environ.get("PYTHONPATH", "")])
    trainer = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    try:
        assert trainer.stdout
        line = next(line for line in trainer.stdout if line.startswith("pids "))
        pids = [int(pid) for pid in line.split()[1:]]
        server = {psutil.Process(pid).ppid() for pid in pids}
    finally:
        trainer.kill()
        trainer.wait()
    assert len(pids) == 2 and len(server) == 1
    deadline = time.monotonic() + 30
    while any(map(psutil.pid_exists, (*pids, *server))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(psutil.pid_exists, (*pids, *server)))


def test_why_a_process_has_ended_is_told() -> None:
    assert "/dev/shm may be full" in str(workers._ended(-signal.SIGBUS))
    assert "exit status 3" in str(workers._ended(3)) and "exit status None" in str(workers._ended(None))
