"""Records of steps on a GPU: CUDA graphs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch

from tuner.process.collection import without_collection
from tuner.train.step.recording import Unrecordable
from tuner.train.step.streams import MOST, streams_of


class CudaGraphs:
    """Records functions as CUDA graphs, on a stream that is its own while the body of `place` runs.

    The graphs share one memory pool. That is safe because they run one after another, on one stream, and because
    nothing that one of them allocates is read once another one has run. All of them stay until the body ends, also
    those that are repeated no more: torch cannot record into a pool whose graphs are gone, and with each graph that is
    deleted some versions (https://github.com/pytorch/pytorch/issues/193402) free cuBLAS's memory of the stream, which
    the others write to.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: list[torch.cuda.CUDAGraph] = []

    @contextmanager
    def place(self) -> Iterator[None]:
        with streams_of(self._device).lent() as stream:
            if stream is None:
                yield
                return
            stream.wait_stream(torch.cuda.current_stream(self._device))  # what is there was computed on that one
            self._stream = stream
            try:
                with torch.cuda.stream(stream):
                    yield
            finally:
                self._end(stream)

    def _end(self, stream: torch.cuda.Stream) -> None:
        """Let the GPU end what it computes, and delete the graphs.

        A training that is stopped leaves steps behind, which would write to memory that another one has got by then.
        """
        self._stream = None
        try:
            stream.synchronize()
        finally:
            for graph in self._graphs:
                graph.reset()
            self._graphs.clear()
            self._pool = torch.cuda.graph_pool_handle()

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        if self._stream is None:
            raise Unrecordable(f"{MOST} trainings of this process record, and its GPU has no more streams")
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads, such as one that saves a checkpoint, may wait for their streams meanwhile. A collection of
            # garbage may unload compiled code of an earlier training, which would end the capture.
            with (
                without_collection(),
                torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"),
            ):
                function()
        except RuntimeError as error:
            self._forget(graph)
            # What ended the capture says more than that it has been ended.
            first = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            lines = str(first).splitlines()
            raise Unrecordable(f"CUDA cannot capture it: {lines[0] if lines else type(first).__name__}") from error
        self._graphs.append(graph)
        return graph.replay

    def _forget(self, graph: torch.cuda.CUDAGraph) -> None:
        """Let torch's allocator end a capture that has failed.

        In some versions (https://github.com/pytorch/pytorch/pull/180395) it would go on for the allocator, which then
        fails whenever it is to return memory to the system, in any training of the process.
        """
        graph.reset()
        index, pool = torch.cuda.current_device(), self._pool
        with suppress(RuntimeError):  # it has ended
            torch._C._cuda_endAllocateToPool(index, pool)
            torch._C._cuda_releasePool(index, pool)
        self._pool = torch.cuda.graph_pool_handle()
