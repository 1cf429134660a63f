"""MLflow's system metrics of the node that a trial runs on, each the mean since the report before."""

import time
from collections import defaultdict
from threading import Event, Lock, Thread
from typing import ClassVar

import psutil
import torch

_MEBI = 2**20

_FIRST, _USUAL = 0.1, 1.0
"""Seconds until the first sample after a report, so that a short epoch has some, and between later ones."""

_LAST = 5.0
"""Seconds that the end of a trial waits for a sample that the driver of a GPU does not answer."""


class SystemMetrics:
    """Samples the load and the memory of this node and of its GPUs in a thread of its own, from entering to leaving.

    Trials of one process share the thread. A sample calls nothing of CUDA: a call by another thread would end the
    capture of a graph, and one before the training computes would take memory of a GPU that may be another trial's.
    """

    _sampler: ClassVar["_Sampler | None"] = None
    _users: ClassVar[list["SystemMetrics"]] = []
    _entering: ClassVar[Lock] = Lock()

    def __init__(self) -> None:
        self._samples: dict[str, list[float]] = defaultdict(list)
        self._lock = Lock()

    def __enter__(self) -> "SystemMetrics":
        psutil.cpu_percent()  # the next call of this thread returns the load since now
        with self._entering:
            self._users.append(self)
            if SystemMetrics._sampler is None:
                SystemMetrics._sampler = _Sampler(self._users)
            self._its = SystemMetrics._sampler
        return self

    def __exit__(self, *_: object) -> None:
        with self._entering:
            self._users.remove(self)
            if self._users:
                return
            SystemMetrics._sampler = None
            self._its.end()

    def take(self, values: dict[str, float]) -> None:
        """Add a sample."""
        with self._lock:
            for name, value in values.items():
                self._samples[name].append(value)

    def means(self) -> dict[str, float]:
        """The means since the last call, or since entering; it is called by the thread that entered.

        Returns:
            Shares in percent and memory in MiB, by the names that MLflow shows below "System metrics"; also of the GPUs
            that this process sees, if it computes on one. Their utilization is there only if NVIDIA's management
            library says it, which it does not of a part of a GPU (MIG); their memory is then that of this moment.
        """
        with self._lock:
            samples, self._samples = self._samples, defaultdict(list)
        self._its.is_reported.set()
        samples = samples or {name: [value] for name, value in _sample().items()}
        means = {name: sum(values) / len(values) for name, values in samples.items()}
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            for number in range(torch.cuda.device_count()):
                means |= _memory_of_gpu(number, means.get(_gpu(number, "memory_usage_megabytes")))
        return {"cpu_utilization_percentage": psutil.cpu_percent(), **means}


class _Sampler:
    """Samples in a thread.

    Args:
        users: Who gets the samples; others may come and go.
    """

    def __init__(self, users: list[SystemMetrics]) -> None:
        self._users = users
        self._is_over = Event()
        self.is_reported = Event()
        """Set when one of them has reported."""
        self._thread = Thread(target=self._sample_on, name="system metrics", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._is_over.set()
        self.is_reported.set()  # wakes the thread
        self._thread.join(_LAST)

    def _sample_on(self) -> None:
        pause, due = _FIRST, time.monotonic() + _FIRST
        while not self._is_over.is_set():
            if self.is_reported.wait(max(0.0, due - time.monotonic())):
                self.is_reported.clear()
                pause, due = _FIRST, min(due, time.monotonic() + _FIRST)
                continue
            values = _sample()
            for each in list(self._users):
                each.take(values)
            pause = min(2 * pause, _USUAL)
            due = time.monotonic() + pause


def _sample() -> dict[str, float]:
    """What is measured at one moment; the load of the CPU is not: the system adds it up."""
    memory = psutil.virtual_memory()
    values = {
        "system_memory_usage_percentage": memory.percent,
        "system_memory_usage_megabytes": memory.used / _MEBI,
        "process_memory_usage_megabytes": psutil.Process().memory_info().rss / _MEBI,
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for number in range(torch.cuda.device_count()):
            values |= {_gpu(number, name): value for name, value in _of_gpu(number).items()}
    return values


def _gpu(number: int, name: str) -> str:
    return f"gpu_{number}_{name}"


def _of_gpu(number: int) -> dict[str, float]:
    """What NVIDIA's management library says of a GPU; it needs no memory there."""
    try:  # errors of many types: the library is missing, or does not know this GPU, which is no fault of the trial
        return {
            "utilization_percentage": torch.cuda.utilization(number),
            "memory_usage_megabytes": torch.cuda.device_memory_used(number) / _MEBI,
        }
    except Exception:
        return {}


def _memory_of_gpu(number: int, used: float | None) -> dict[str, float]:
    """The memory of a GPU that is used, of which the mean in MiB is given; None for what is used now."""
    if used is None:
        free, total = torch.cuda.mem_get_info(number)
        used = (total - free) / _MEBI
    else:
        total = torch.cuda.get_device_properties(number).total_memory
    percentage = 100 * used * _MEBI / total
    return {_gpu(number, "memory_usage_megabytes"): used, _gpu(number, "memory_usage_percentage"): percentage}
