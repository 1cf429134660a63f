"""What watches a training that is profiled: it measures some epochs, and traces the end of the one after them."""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from tuner.data import DataConfig
from tuner.data.loading.source import LoaderResources, Source
from tuner.train.observer import Observer, Phase
from tuner.train.profiling.source import WatchedSource
from tuner.train.profiling.stopwatch import Stopwatch
from tuner.train.profiling.trace import PREFIX, STEP, WAITING

HOST = "host"
WAIT, WAIT_IN_EVALUATION = "waiting for data", "waiting in evaluation"
"""What the stopwatch counts beside the phases of `tuner.train.observer`."""


@dataclass(frozen=True)
class Course:
    """What is watched, and how much of it.

    Args:
        train: Most images of an epoch; None for all.
        validation: Images after which an evaluation ends; None for all.
        epochs: Number of the measured epochs.
        traced: Steps that are traced, the last ones of the epoch after the measured ones.
        warm_up: Epochs before the measured ones, in which memory is allocated, libraries choose kernels, and steps are
            recorded.
    """

    train: int | None
    validation: int | None
    epochs: int
    traced: int
    warm_up: int = 1

    @property
    def last(self) -> int:
        """The epoch that is traced."""
        return self.warm_up + self.epochs + 1


class Opened:
    """The data of a training, opened once for all that is watched; what they hold is freed by `close`."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._sources: tuple[Source, Source] | None = None

    def open(self, data: DataConfig, device: torch.device, loading: LoaderResources) -> tuple[Source, Source]:
        """Open the data, or return what was opened before."""
        if self._sources is None:
            self._sources = self._stack.enter_context(data.opened(device, loading))
        return self._sources

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *error: object) -> None:
        self._sources = None
        self._stack.close()

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of images of the training and the validation set."""
        assert self._sources is not None, "a training has opened them"
        return len(self._sources[0]), len(self._sources[1])


class Measuring(Observer):
    """Measures a training.

    Args:
        opened: Its data.
        course: What to watch.
        device: The device of the training.
        trace: The file to write the trace to, gzipped JSON; None to trace nothing.
    """

    def __init__(self, opened: Opened, course: Course, device: torch.device, trace: Path | None) -> None:
        self.stopwatch = Stopwatch(HOST)
        """Seconds of the measured epochs."""
        self.steps: list[float] = []
        """Seconds from each step of the first epoch to the next; a GPU has computed the step by then."""
        self.measured: tuple[WatchedSource, WatchedSource]
        """What was read of the training and the validation set in the measured epochs; of a probe, in its only one."""
        self._opened, self._course, self._device, self._trace = opened, course, device, trace
        self.planned = 0
        """Steps of an epoch."""
        self._epoch = self._step = 0
        self._step_began = 0.0
        self._profiler: profile | None = None
        self._range: record_function | None = None

    @contextmanager
    def opened(
        self, data: DataConfig, device: torch.device, loading: LoaderResources
    ) -> Iterator[tuple[Source, Source]]:
        train, validation = self._opened.open(data, device, loading)
        self.train = WatchedSource(train, self._wait, most=self._course.train, is_shorter=True)
        self.validation = WatchedSource(validation, self._wait, most=self._course.validation)
        yield self.train, self.validation

    @property
    def _is_measured(self) -> bool:
        return self._course.warm_up < self._epoch < self._course.last

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        if phase == "training":
            self._begin_epoch()
        with self.stopwatch.phase(phase), self._named(f"{PREFIX}{phase}"):
            yield
            if phase == "training":
                self._end_step()
        if phase == "report":
            self._end_epoch()

    def before_batch(self) -> None:
        """A step begins. It is called before each one."""
        now = time.perf_counter()
        if self._epoch == 1:
            self._wait_for_device()
            now = time.perf_counter()
            if self._step:
                self.steps.append(now - self._step_began)
            self.planned += 1
        self._step_began = now
        self._step += 1
        if self._trace is not None and self._epoch == self._course.last:
            self._end_step()
            if self._step == max(1, self.planned - self._course.traced + 1):
                self._begin_trace()
            if self._profiler is not None:
                self._range = record_function(f"{STEP} {self._step}")
                self._range.__enter__()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Stop what still runs because the training has ended early."""
        self._range = None
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None

    def _begin_epoch(self) -> None:
        self._epoch += 1
        self._step = 0
        if self._epoch == self._course.warm_up + 1:
            self.train.reset()
            self.validation.reset()
        if self._is_measured:
            self.stopwatch.start()
        if self._trace is not None and self._epoch == self._course.last:
            self.validation.most = 1  # one batch: more would make the trace large

    def _end_epoch(self) -> None:
        if self._is_measured:
            self.stopwatch.stop()
        if self._epoch == self._course.last - 1:  # what follows is not counted
            self.measured = (copy(self.train), copy(self.validation))
        if self._profiler is not None and self._trace is not None:
            self._profiler.stop()
            self._profiler.export_chrome_trace(str(self._trace))
            self._profiler = None

    def _begin_trace(self) -> None:
        # Kineto writes a line for each start and stop to standard error; it reads this when it is used first.
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
        self._wait_for_device()
        on_gpu = [ProfilerActivity.CUDA] if self._device.type == "cuda" else []
        self._profiler = profile(activities=[ProfilerActivity.CPU, *on_gpu])
        self._profiler.start()

    def _end_step(self) -> None:
        if self._range is not None:
            self._range.__exit__(None, None, None)
            self._range = None

    def _wait_for_device(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    @contextmanager
    def _wait(self) -> Iterator[None]:
        """The body waits for a batch."""
        in_evaluation = self.stopwatch.phase_now == "evaluation"
        with self.stopwatch.phase(WAIT_IN_EVALUATION if in_evaluation else WAIT), self._named(WAITING):
            yield

    def _named(self, name: str) -> AbstractContextManager[object]:
        """A range of that name in the trace, while there is one."""
        return nullcontext() if self._profiler is None else record_function(name)
