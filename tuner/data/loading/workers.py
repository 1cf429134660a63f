"""Decoding of images by worker processes: one pool for all sets of a trial."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tuner.data.loading.decoder import Decoder
from tuner.errors import Problem, UserError
from tuner.process.children import end_with_parent, without_main

_CHUNK = 64
"""Most images that a worker sends at once."""
_CHUNK_BYTES = 2 * 2**20
"""About the most bytes that a worker sends at once: chunks lie in shared memory, which containers limit to 64 MB."""
_AHEAD = 4
"""Chunks that each worker decodes before they are asked for."""

_NOTICE = 1.0
"""Seconds until the end of a process is noticed here after its pipes have closed."""


class DecodingWorkers:
    """A pool of processes that decode images, which begins when the first image is asked for.

    Args:
        decoder: Decodes the images.
        count: Number of processes; 0 to decode in this one.
        device: The device that the images go to: for a GPU they are copied to pinned memory.
        refuse: Raises the error of images that cannot be decoded; it is called with why, by their names.
    """

    def __init__(
        self, decoder: Decoder, count: int, device: torch.device, refuse: Callable[[dict[str, str]], None]
    ) -> None:
        self.chunk = max(1, min(_CHUNK, _CHUNK_BYTES // decoder.image_bytes))
        """Images of a chunk."""
        self._decoder = decoder
        self._count = count
        self._refuse = refuse
        self._names = _Names()
        options: dict[str, Any] = {}
        if count:
            # A fork of a process with threads, such as Ray's and CUDA's, may never come to life.
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])
            options = {
                "multiprocessing_context": context,
                "persistent_workers": True,
                "prefetch_factor": _AHEAD,
                "worker_init_fn": _end_with_trainer,
            }
        self._loader: DataLoader[Any] | None = DataLoader(
            _Images(decoder),
            batch_sampler=self._names,
            collate_fn=_as_they_are,
            num_workers=count,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # else it draws from the generator of the training
            **options,
        )
        self._pass: Any = None

    def decode(self, chunks: Iterable[list[str]]) -> Iterator[Tensor]:
        """Decode chunks of images, each uint8 (N, C, H, W), in their order.

        Raises:
            UserError: An image cannot be decoded, or a process has ended.
        """
        assert self._loader is not None, "it is not closed"
        self._names.chunks = chunks
        with self._explained(), without_main():
            self._pass = iter(self._loader)
        while True:
            with self._explained():
                images, failures = next(self._pass, (None, {}))
            if images is None:
                return
            if failures:
                self._refuse(failures)
            yield images

    def decode_here(self, names: list[str]) -> Tensor:
        """Decode a few images in this process, uint8 (N, C, H, W).

        Raises:
            UserError: An image cannot be decoded.
        """
        images, outcome = self._decoder.all(names)
        if outcome.failures:
            self._refuse(outcome.failures)
        return images

    def close(self) -> None:
        """End the processes."""
        running, self._pass, self._loader = self._pass, None, None  # also what a traceback keeps of them
        if running is not None and self._count:
            running._shutdown_workers()  # a traceback may refer to it itself, so that it would end much later

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the errors of a DataLoader that lost a process, which are of many types, into one for the user."""
        try:
            yield
        except (RuntimeError, OSError, EOFError) as error:
            workers = getattr(self._pass, "_workers", [])
            deadline = time.monotonic() + _NOTICE
            while all(each.is_alive() for each in workers):
                if time.monotonic() > deadline or not workers:
                    raise
                time.sleep(0.01)
            raise UserError(_ended(next(each.exitcode for each in workers if not each.is_alive()))) from error


class _Names:
    """The chunks of the current pass: a DataLoader iterates over its sampler anew for each."""

    def __init__(self) -> None:
        self.chunks: Iterable[list[str]] = ()

    def __iter__(self) -> Iterator[list[str]]:
        return iter(self.chunks)


class _Images(Dataset[Any]):
    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def __getitems__(self, names: list[str]) -> tuple[Tensor, dict[str, str]]:
        images, outcome = self._decoder.all(names)
        return images, outcome.failures


def _as_they_are(chunk: Any) -> Any:
    return chunk


def _end_with_trainer(worker: int) -> None:
    end_with_parent()


def _ended(status: int | None) -> Problem:
    """The problem that a process has ended, with its exit status: the negative number of the signal that ended it."""
    how = f"has ended with the exit status {status}"
    hint = "its output may say why"
    if status is not None and -status in set(signal.Signals):
        how = f"was ended by {signal.Signals(-status).name}"
        hint = "memory may have run out: let fewer trials run at once, give each fewer cores, or write cache: disk"
        if -status == signal.SIGBUS:
            hint = "/dev/shm may be full: give the container more shared memory, or write cache: disk"
    return Problem(f"a process that decodes images for this trial {how}", "trial.data.cache", hint=hint)
