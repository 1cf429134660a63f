"""Records of steps on a GPU: CUDA graphs."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from tuner.train.step.recording import Unrecordable


class CudaGraphs:
    """Records functions as CUDA graphs on a stream of its own.

    The graphs share one memory pool. That is safe because they run one after another, on one stream, and because
    nothing that one of them allocates is read once another one has run.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def place(self) -> AbstractContextManager[object]:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))  # what is there was computed on that one
        return torch.cuda.stream(self._stream)

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[self._stream.device.index]
        spare = generator.clone_state()
        try:
            # Other threads, such as one that saves a checkpoint, may wait for the device meanwhile.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                function()
        except RuntimeError as error:
            generator.graphsafe_set_state(spare)  # that of a capture that failed goes on to wait for its end
            lines = str(error).splitlines()
            raise Unrecordable(f"CUDA cannot capture it: {lines[0] if lines else type(error).__name__}") from error
        return graph.replay
