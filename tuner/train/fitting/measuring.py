"""The measurement of a trial's batches, by a process of its own on this machine."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from typing import Any

from tuner import user_code
from tuner.data.downloads import data_dir
from tuner.data.loading.choice import free_memory
from tuner.data.loading.source import LoaderResources
from tuner.error_text import one_line
from tuner.errors import Problem, UserError
from tuner.train.fitting.batch_search import KEY, Measured, search
from tuner.train.fitting.task import Ready, Task
from tuner.train.trial_config import TrialConfig

_SHARE = 0.9
"""Share of the free memory of this machine that trials may take together: the rest is for Ray and the record."""
_PROGRAM = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)  # it ends with the process that asked
from tuner.process.startup import postpone_collection
postpone_collection()
from tuner.train.fitting.process import main
main(int(sys.argv[1]))
"""
_KILLED = (-signal.SIGKILL, -signal.SIGABRT)
"""How a process ends whose memory ran out: the system kills it, or C++ gives up."""


def measure(
    config: TrialConfig,
    *,
    threads: int,
    has_gpu: bool,
    loading: LoaderResources,
    teacher: str = "",
    ranks: int = 1,
) -> Measured:
    """Measure the largest batch of a trial that fits in memory and still trains faster than a smaller one.

    Args:
        config: The trial.
        threads: Threads that it computes on.
        has_gpu: Whether it has a GPU, or a share of one.
        loading: What it may take, and how many run at once beside it.
        teacher: Folder or URI of the teacher of its distillation; empty if it has none.
        ranks: Processes that train it together, of which one is measured: the batch is as many times as large.

    Raises:
        UserError: Not even the smallest batch fits, or a training step of the trial fails.
    """
    folders = tuple(map(str, user_code.folders())) if config.targets else ()
    memory = _SHARE * free_memory() / loading.trials_per_host
    trial = config.model_dump(mode="json")
    task = Task(trial, threads, has_gpu, loading, memory, teacher, folders)
    with closing(_Meter(task)) as meter:
        ready = meter.begin()
        most = max(1, ready.images // (config.accumulate * ranks))
        found = search(meter.measure, most=most, least=ready.least)
    size = ranks * found.batch_size
    steps = -(-ready.images // (size * config.accumulate))
    return replace(found, batch_size=size, device=ready.device, steps=steps, ranks=ranks)


class _Meter:
    """A process that measures; another one where memory ran out for good."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._process: subprocess.Popen[str] | None = None
        self._device = ""

    def begin(self) -> Ready:
        """Start the process, and wait until it can measure."""
        self._output = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - until `close`
        read, write = os.pipe()
        self._answers = os.fdopen(read)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-u", "-c", _PROGRAM, str(write)],  # unbuffered: its last words are read
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=self._output,
            text=True,
            pass_fds=[write],
            start_new_session=True,
            # It imports what this process would, and no module of the user's that is named as one of a library.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TUNER_DATA_DIR": str(data_dir().resolve())},
        )
        os.close(write)
        answer = self._ask(json.dumps(self._task.plain()))
        if answer is None:
            message = "auto finds none: the data and the model alone do not fit in memory"
            hint = "give a trial more memory: fewer at once by a larger resources.cpu or resources.gpu"
            raise UserError(Problem(message, KEY, hint=hint))
        ready = Ready(**answer)
        self._device = ready.device
        return ready

    def measure(self, size: int) -> float | None:
        """Measure the images per second of a size; None if it does not fit in memory."""
        if self._process is None:
            self.begin()
        answer = self._ask(str(size))
        speed: float | None = None if answer is None else answer["speed"]
        if speed is None and self._device == "cuda":  # what is left of a graph that was being captured may break others
            self.close()
        return speed

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._answers.close()
            self._output.close()
            self._process = None

    def _ask(self, line: str) -> dict[str, Any] | None:
        """Return the answer to a line; None if memory ran out."""
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
            text = self._answers.readline()
        except BrokenPipeError:
            text = ""
        if not text.endswith("\n"):
            status, said = self._process.wait(), self._last_words()
            self.close()
            if status in _KILLED:
                return None
            raise _failed(f"the process that measures ended with status {status}: {said}")
        answer: dict[str, Any] = json.loads(text)
        if "problems" in answer:
            raise UserError(*(Problem(**each | {"items": tuple(each["items"])}) for each in answer["problems"]))
        if "error" in answer:
            raise _failed(f"a training step of the trial fails: {answer['error']}")
        return None if "out_of_memory" in answer else answer

    def _last_words(self) -> str:
        self._output.seek(0)
        return one_line(self._output.read()[-400:]) or "it says nothing"


def _failed(why: str) -> UserError:
    hint = "tuner train FILE with a number, such as trial.data.batch_size=32, shows where"
    return UserError(Problem(f"auto cannot be measured: {why}", KEY, hint=hint))
