"""Jobs whose workers are killed while they train."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from commands import tuner
from conftest import eventually, processes_below


class Disturber:
    """Kills the processes that train a job's trials, of the Ray that a process has started: ours, or the job's."""

    def __init__(self, folder: Path, pid: int = 0) -> None:
        self.folder = folder
        self._pid = pid or os.getpid()
        self._others = {worker.pid for worker in self._workers()}  # of jobs that have ended

    def wait_for_reports(self) -> None:
        """Until a trial has reported."""

        def reported() -> bool:
            return any('"reported"' in journal.read_text() for journal in self.folder.glob("runs/*/*/journal.jsonl"))

        assert eventually(reported, 600)

    def worker(self) -> psutil.Process:
        """A process that trains a trial of the job."""
        found: list[psutil.Process] = []

        def is_there() -> bool:
            found[:] = [worker for worker in self._workers() if worker.pid not in self._others]
            return bool(found)

        assert eventually(is_there, 60)
        return found[0]

    def _workers(self) -> list[psutil.Process]:
        return processes_below(self._pid, "ray::ImplicitFunc")

    def kill(self) -> None:
        worker = self.worker()
        worker.kill()
        self._others.add(worker.pid)

    def kill_in_the_middle_of_a_checkpoint(self, temporary: Path) -> Path:
        """Returns the temporary folder that the worker leaves behind."""
        worker = self.worker()
        while True:
            worker.suspend()  # what is there now stays there
            if left := [*temporary.glob(f"tuner-*-{worker.pid}-*")]:
                break
            worker.resume()
            time.sleep(0.002)
        worker.kill()
        self._others.add(worker.pid)
        assert eventually(lambda: not worker.is_running()) and left[0].exists()
        return left[0]


def disturbed(disturb: Callable[[], object], folder: Path, *arguments: str) -> tuple[int, str]:
    """Run ``tuner`` in a folder, in this process, while something disturbs it. Returns its exit status and output."""
    with ThreadPoolExecutor(1) as pool:
        disturbing = pool.submit(disturb)
        done = tuner(folder, *arguments)
        disturbing.result()
    return done
