"""What a trace of torch's profiler says: how long the GPU computed, what the host did, which operators took long."""

import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

PREFIX = "tuner: "
"""The beginning of the names of our own ranges."""
STEP = f"{PREFIX}step"
WAITING = f"{PREFIX}waiting for data"

_RANGES = {"user_annotation"}
_ON_GPU = {"kernel", "gpu_memcpy", "gpu_memset"}
_OPERATORS = {"cpu_op"}
_BY_TORCH = _OPERATORS | {"cuda_runtime", "cuda_driver"}
"""Categories of events of the Chrome format, as torch's profiler names them."""

Interval = tuple[float, float]
"""Beginning and end, in seconds."""


@dataclass(frozen=True)
class Event:
    """Something with a beginning and an end.

    Args:
        name: Its name.
        category: Its category, as torch's profiler names it.
        begin: When it began, in seconds.
        end: When it ended, in seconds.
        thread: The thread, or the stream of a GPU.
        operator: What links an operator and the kernels that it launched; None where nothing does.
    """

    name: str
    category: str
    begin: float
    end: float
    thread: tuple[Any, Any]
    operator: int | None = None


@dataclass(frozen=True)
class Operator:
    """An operator of torch.

    Args:
        name: Its name, or that of a kernel that no operator launched: one of a graph.
        seconds: Seconds of a step: of its kernels if a GPU computes them, else on the host, without operators within.
        calls: Calls in a step, or launches of kernels.
    """

    name: str
    seconds: float
    calls: float


@dataclass(frozen=True)
class Window:
    """What happened in some steps of a training.

    Args:
        steps: Number of the steps.
        seconds: Seconds of all of them.
        on_gpu: Seconds in which the GPU computed or copied.
        waiting: Seconds in which the training waited for data, and the GPU for the training.
        in_torch: Seconds in which the host was within an operator of torch or a call of CUDA, and none of the above.
        launches: Kernels and copies that the GPU got, in all steps.
        operators: The operators, the longest one first.
    """

    steps: int
    seconds: float
    on_gpu: float
    waiting: float
    in_torch: float
    launches: int
    operators: Sequence[Operator]

    @property
    def on_host(self) -> float:
        """Seconds in which Python computed something else."""
        return max(0.0, self.seconds - self.on_gpu - self.waiting - self.in_torch)


def read(path: Path) -> list[Event]:
    """Read the events of a gzipped trace in Chrome's format."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found = json.load(file)["traceEvents"]
    return [_event(each) for each in found if each.get("ph") == "X" and "cat" in each]


def _event(values: dict[str, Any]) -> Event:
    begin, length = float(values["ts"]) / 1e6, float(values.get("dur", 0)) / 1e6
    operator = values.get("args", {}).get("External id")
    where = (values.get("pid"), values.get("tid"))
    return Event(str(values["name"]), values["cat"], begin, begin + length, where, operator)


def window_of(events: Sequence[Event]) -> Window:
    """Split the time of the steps in a trace.

    At each moment only the first of these counts: the GPU computes, the training waits for data, the host is in an
    operator or a call of CUDA.

    Raises:
        ValueError: The trace has no step.
    """
    steps = [each for each in events if each.category in _RANGES and each.name.startswith(STEP)]
    if not steps:
        raise ValueError("the trace has no step of a training")
    begin, end = min(each.begin for each in steps), max(each.end for each in steps)
    within = [each for each in events if each.begin < end and each.end > begin]

    def taken(*sets: Callable[[Event], bool]) -> float:
        """Seconds in which an event of one of the sets lasts."""
        chosen = (each for each in within if any(each_set(each) for each_set in sets))
        return _covered((max(each.begin, begin), min(each.end, end)) for each in chosen)

    def waits(event: Event) -> bool:
        return event.category in _RANGES and event.name == WAITING

    on_gpu = taken(_in(_ON_GPU))
    waiting = taken(_in(_ON_GPU), waits)
    in_torch = taken(_in(_ON_GPU), waits, _in(_BY_TORCH))
    launches = [each for each in within if each.category in _ON_GPU]
    operators = _kernels(launches, within) if launches else _operators(within)
    return Window(
        len(steps),
        end - begin,
        on_gpu,
        waiting - on_gpu,
        in_torch - waiting,
        len(launches),
        _longest(operators, len(steps)),
    )


def _in(categories: Collection[str]) -> Callable[[Event], bool]:
    return lambda event: event.category in categories


def _covered(intervals: Iterable[Interval]) -> float:
    """The length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def _operators(events: Sequence[Event]) -> Iterator[tuple[str, float]]:
    """The name of each operator, and its seconds without those of the operators within it."""

    def thread(event: Event) -> str:
        return str(event.thread)

    found = sorted((each for each in events if each.category in _OPERATORS), key=thread)
    for _, of_thread in groupby(found, key=thread):
        around: list[tuple[Event, list[float]]] = []
        for event in sorted(of_thread, key=lambda each: (each.begin, -each.end)):
            while around and around[-1][0].end <= event.begin:
                yield _without_inner(*around.pop())
            if around:
                around[-1][1].append(event.end - event.begin)
            around.append((event, []))
        while around:
            yield _without_inner(*around.pop())


def _without_inner(event: Event, inner: Sequence[float]) -> tuple[str, float]:
    return event.name, max(0.0, event.end - event.begin - sum(inner))


def _kernels(launches: Sequence[Event], events: Sequence[Event]) -> Iterator[tuple[str, float]]:
    """The name of the operator that launched each kernel, or the kernel's own, and the seconds of the kernel."""
    names = {each.operator: each.name for each in events if each.category in _OPERATORS and each.operator is not None}
    for each in launches:
        yield each.name if each.operator is None else names.get(each.operator, each.name), each.end - each.begin


def _longest(operators: Iterable[tuple[str, float]], steps: int) -> list[Operator]:
    found: dict[str, list[float]] = defaultdict(list)
    for name, seconds in operators:
        found[name].append(seconds)
    each = [Operator(name, sum(seconds) / steps, len(seconds) / steps) for name, seconds in found.items()]
    return sorted(each, key=lambda operator: -operator.seconds)
