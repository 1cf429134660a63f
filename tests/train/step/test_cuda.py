"""What becomes of CUDA graphs, as far as that shows on a GPU that is only pretended."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tuner.train.step import streams
from tuner.train.step.cuda import CudaGraphs
from tuner.train.step.recording import Unrecordable

GPU = torch.device("cuda")
EXISTS = torch.version.cuda is not None


class Stream:
    device = torch.device("cuda", 0)

    def __init__(self, happened: list[str]) -> None:
        self._happened = happened

    def wait_stream(self, other: object) -> None:
        self._happened.append("the stream waits")

    def synchronize(self) -> None:
        self._happened.append("the stream has ended")


class Graph:
    """A graph, whose memory torch counts to its pool until it is reset or deleted."""

    happened: list[str]

    def __init__(self) -> None:
        self._is_there = True

    def replay(self) -> None:
        self.happened.append("a graph is repeated")

    def reset(self) -> None:
        if self._is_there:
            self._is_there = False
            self.happened.append("a graph is deleted")

    def __del__(self) -> None:
        self.reset()


class Gpu:
    """What torch does on a GPU, in the order in which it is done.

    Args:
        monkeypatch: Replaces torch.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.happened: list[str] = []
        self.ended: list[object] = []
        """The pools whose captures the allocator was told to end."""
        self._pools = iter(range(100))
        kind = type("GraphHere", (Graph,), {"happened": self.happened})
        monkeypatch.setattr(streams, "_of_gpus", {})
        for name, value in {
            "Stream": lambda index: Stream(self.happened),
            "CUDAGraph": kind,
            "graph": self._capture,
            "graph_pool_handle": lambda: next(self._pools),
            "current_device": lambda: 0,
            "current_stream": lambda device: None,
            "stream": lambda stream: self._on(),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self._end, raising=False)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda index, pool: None, raising=False)

    @contextmanager
    def _on(self) -> Iterator[None]:
        yield

    @contextmanager
    def _capture(self, graph: object, pool: object, stream: object, *, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local", "others compute meanwhile"
        assert not gc.isenabled(), "garbage of other trainings may end it"
        self.happened.append(f"a capture into pool {pool}")
        try:
            yield
        except RuntimeError:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture") from None

    def _end(self, index: int, pool: object) -> None:
        self.ended.append(pool)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return Gpu(monkeypatch)


def nothing() -> None:
    """Compute nothing."""


def fail() -> None:
    raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB\nwith a second line")


def test_graphs_are_deleted_when_the_gpu_has_computed_what_it_was_given(gpu: Gpu) -> None:
    """Also if the training is stopped amid an epoch, with its exception on the way."""
    graphs = CudaGraphs(GPU)

    def train() -> None:
        with graphs.place():
            graphs.record(nothing)()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert gpu.happened == [
        "the stream waits",
        "a capture into pool 0",
        "a graph is repeated",
        "the stream has ended",
        "a graph is deleted",
    ]


def test_a_graph_that_is_used_no_more_stays_as_long_as_others_may_be(gpu: Gpu) -> None:
    """torch cannot record into a pool whose graphs are gone, and frees memory that other graphs need with each one."""
    graphs = CudaGraphs(GPU)
    with graphs.place():
        for _ in range(2):
            graphs.record(nothing)
        assert "a graph is deleted" not in gpu.happened
        assert gpu.happened.count("a capture into pool 0") == 2
    with graphs.place():
        graphs.record(nothing)
    assert "a capture into pool 1" in gpu.happened, "the first pool went with its graphs"


def test_a_capture_that_fails_leaves_nothing_behind(gpu: Gpu) -> None:
    graphs = CudaGraphs(GPU)
    with graphs.place():
        with pytest.raises(Unrecordable) as raised:
            graphs.record(fail)
        assert str(raised.value) == "CUDA cannot capture it: CUDA out of memory. Tried to allocate 20 GiB"
        assert gpu.happened[-1] == "a graph is deleted" and gpu.ended == [0] and gc.isenabled()
        graphs.record(nothing)()
    assert "a capture into pool 1" in gpu.happened


def test_without_a_stream_nothing_is_recorded(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "streams_of", lambda device: SimpleNamespace(lent=lambda: gpu._on()))
    monkeypatch.setattr("tuner.train.step.cuda.streams_of", streams.streams_of)
    graphs = CudaGraphs(GPU)
    with graphs.place(), pytest.raises(Unrecordable, match="32 trainings of this process record"):
        graphs.record(nothing)


@pytest.mark.skipif(not EXISTS, reason="this torch is built without CUDA")
def test_torch_has_what_is_used_of_it() -> None:
    """Names that are private in torch, or that only its builds for GPUs have."""
    named: dict[Any, list[str]] = {
        torch._C: ["_cuda_endAllocateToPool", "_cuda_releasePool"],
        torch.cuda.CUDAGraph: ["reset", "replay"],
        torch.Generator: ["clone_state", "graphsafe_get_state", "graphsafe_set_state"],
    }
    assert all(hasattr(owner, name) for owner, names in named.items() for name in names)
