"""Whole jobs, each in a folder of its own with a record of its own, as somebody would start them."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.commands import end
from benchmarks.gpu.figures import TimeIsUp
from benchmarks.gpu.memory import Memory
from benchmarks.gpu.record import Epoch, epochs_of, tags_of
from benchmarks.gpu.setting import Setting

_LEAST, _TO_END = 10.0, 6.0
"""Seconds of a row without which no job is started, and those that are kept for the end of one that takes too long."""


@dataclass(frozen=True)
class Job:
    """A job that has ended.

    Args:
        folder: Where it ran: its record is ``mlflow.db``, its trials are in ``runs``.
        seconds: Of the process, from its start to its end.
        until_first: Seconds from there until all trials had begun to train.
        host: The most memory of its processes, in bytes.
        card: The most memory of the card that it took, in bytes.
    """

    folder: str
    seconds: float
    until_first: float
    host: int
    card: int

    @property
    def epochs(self) -> list[Epoch]:
        """The epochs that it has recorded."""
        return epochs_of(Path(self.folder) / "mlflow.db")

    def tags(self, name: str) -> list[str]:
        """The values of a tag of its runs."""
        return tags_of(Path(self.folder) / "mlflow.db", name)

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints of its trials, in the order of their numbers."""
        return sorted(Path(self.folder).glob("runs/*/*/trial-*/checkpoint_*"))


def experiment(
    trial: Mapping[str, Any], trials: int, *, gpu: float | None = None, cpu: float = 1, keep: int | str = "all"
) -> dict[str, Any]:
    """An experiment of trials that differ in their learning rates.

    Args:
        trial: Its section `trial`.
        trials: Their number.
        gpu: The share of a GPU of each; None for `auto`.
        cpu: The cores of each.
        keep: How many of the best trials keep their checkpoints.
    """
    return {
        "name": "gpu-benchmark",
        "objective": "val_accuracy",
        "trial": dict(trial),
        "space": {"optimizer.lr": {"loguniform": [0.001, 0.03]}},
        "search": {"kind": "random", "trials": trials, "seed": 0},
        "resources": {"cpu": cpu, "gpu": "auto" if gpu is None else gpu},
        "checkpoints": {"keep": keep},
        "storage": "runs",
    }


def run(setting: Setting, name: str, spec: Mapping[str, Any], source: Path = machine.ROOT) -> Job:
    """Run a job, once in this run of the benchmark.

    Args:
        setting: Where it runs. It is ended when the time of the row is used.
        name: Its name, which another row may ask for: that gets the same job.
        spec: The experiment.
        source: The repository whose code runs it.

    Raises:
        RuntimeError: It failed.
        TimeIsUp: It took too long.
    """
    folder = Path(setting.folder) / name
    folder.mkdir(exist_ok=True)
    file = folder / "experiment.yaml"
    file.write_text(json.dumps(spec))  # which is YAML, too
    return _once(setting, name, ["-m", "tuner.run", str(file)], source)


def run_file(setting: Setting, name: str, file: Path, overrides: Sequence[str]) -> Job:
    """Run a job of a file with overrides; see `run`."""
    return _once(setting, name, ["-m", "tuner.run", str(file), *overrides], machine.ROOT)


def _once(setting: Setting, name: str, arguments: Sequence[str], source: Path) -> Job:
    return Job(**setting.once(f"job-{name}", lambda: vars(_measured(setting, name, arguments, source))))


def _measured(setting: Setting, name: str, arguments: Sequence[str], source: Path) -> Job:
    setting.need(_LEAST, "a job")
    folder = Path(setting.folder) / name
    folder.mkdir(exist_ok=True)
    log = folder / "output.txt"
    began = time.time()
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=setting.environment(source),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that it can be ended with all its workers
        )
        try:
            with Memory([process.pid], setting.visible) as memory:
                status = process.wait(timeout=setting.left - _TO_END)
            seconds = time.time() - began
        except subprocess.TimeoutExpired:
            seconds = time.time() - began
            raise TimeIsUp(f"{name} was ended after {seconds:.0f} s", seconds) from None
        finally:
            end(process, _TO_END / 2)
    if status != 0:
        raise RuntimeError(f"{name} ended with status {status}: {log.read_text()[-1500:].strip()}")
    first = max((each.began for each in epochs_of(folder / "mlflow.db") if each.number == 1), default=began)
    return Job(str(folder), seconds, first - began, memory.host, memory.card)
