"""Streams of GPUs, of which each training that records its steps has one for itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, local

import torch

MOST = 32
"""Streams of a GPU that torch has. Whoever asks torch for another one gets one of these again, which others may use."""


class Streams:
    """Lends the streams of a GPU, each to one training at a time.

    While a training records, nothing else may be computed on its stream: it would become a part of the record, and to
    wait for it would end the recording.

    Args:
        index: The number of the GPU.
    """

    def __init__(self, index: int) -> None:
        self._index = index
        self._lock = Lock()
        self._known: list[torch.cuda.Stream] = []
        self._idle: list[torch.cuda.Stream] = []
        self._of_thread = local()

    @contextmanager
    def lent(self) -> Iterator[torch.cuda.Stream | None]:
        """In the body, a stream belongs to the caller; None if all are lent.

        A thread gets the stream that it had before, if that is idle: for each thread on each stream cuBLAS keeps 32 MiB
        of an H100 for good.
        """
        with self._lock:
            stream = self._taken()
        self._of_thread.stream = stream
        try:
            yield stream
        finally:
            if stream is not None:
                with self._lock:
                    self._idle.append(stream)

    def _taken(self) -> torch.cuda.Stream | None:
        if self._idle:
            last = getattr(self._of_thread, "stream", None)
            return self._idle.pop(self._idle.index(last) if last in self._idle else -1)
        for _ in range(MOST):
            stream = torch.cuda.Stream(self._index)  # type: ignore[no-untyped-call]
            if stream not in self._known:
                self._known.append(stream)
                return stream
        return None


_lock = Lock()
_of_gpus: dict[int, Streams] = {}


def streams_of(device: torch.device) -> Streams:
    """The streams of a GPU of this process."""
    index = torch.cuda.current_device() if device.index is None else device.index
    with _lock:
        return _of_gpus.setdefault(index, Streams(index))
