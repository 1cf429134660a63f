"""A source whose waiting is measured, and which may end early, so that an epoch of it takes seconds."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from tuner.data.loading.source import Gather, Source
from tuner.interfaces import Batch


class WatchedSource:
    """A `Source` that says when its batches are waited for.

    Args:
        source: Where the batches come from.
        waiting: Returns the context in which a batch is waited for.
        most: Most images of an iteration, which ends with the batch that reaches it; None for all.
        is_shorter: Whether `most` is the number of images of the set, too, so that a training plans as many steps.
    """

    def __init__(
        self,
        source: Source,
        waiting: Callable[[], AbstractContextManager[object]],
        *,
        most: int | None = None,
        is_shorter: bool = False,
    ) -> None:
        self.most = most
        self.images = 0
        """Images of all batches so far."""
        self.passes = 0
        """Iterations so far."""
        self.first_images = 0
        """Images of the first batches of all iterations."""
        self.first_waits = 0.0
        """Seconds for which the first batches of all iterations were waited for, when nothing was read ahead."""
        self._source, self._waiting, self._is_shorter = source, waiting, is_shorter

    @property
    def device(self) -> torch.device:
        return self._source.device

    @property
    def image_bytes(self) -> int:
        return self._source.image_bytes

    @property
    def is_read(self) -> bool:
        return self._source.is_read

    @property
    def gather(self) -> Gather | None:
        """That of the source. Nothing waits for it, and it is not counted."""
        return self._source.gather

    def __len__(self) -> int:
        whole = len(self._source)
        return min(whole, self.most) if self._is_shorter and self.most is not None else whole

    def first(self, count: int) -> Source:
        return self._source.first(count)

    def batches(self, size: int, seed: int | None = None) -> Iterator[Batch]:
        """Iterate as the source does; see `Source.batches`."""
        return self._watched(self._source.batches(size, seed))

    def order(self, seed: int) -> Tensor:
        """The order of the source, of which a shorter set has the first samples."""
        return self._source.order(seed)[: len(self)]

    def batches_of(self, parts: Sequence[Tensor]) -> Iterator[Batch]:
        """Iterate as the source does; see `Source.batches_of`."""
        return self._watched(self._source.batches_of(parts))

    def _watched(self, iterator: Iterator[Batch]) -> Iterator[Batch]:
        self.passes += 1
        images, is_first = 0, True
        while self.most is None or images < self.most:
            started = time.perf_counter()
            with self._waiting():
                batch = next(iterator, None)
            if batch is None:
                return
            if is_first:
                self.first_waits += time.perf_counter() - started
                self.first_images += len(batch)
                is_first = False
            images += len(batch)
            self.images += len(batch)
            yield batch

    def reset(self) -> None:
        """Count from 0."""
        self.images = self.passes = self.first_images = 0
        self.first_waits = 0.0

    def scaled(self, waited: float, images: int) -> float:
        """How long an iteration over a number of images waits, if all that were counted waited for `waited` seconds.

        The first batch is waited for once in each iteration, whatever its length: nothing was read ahead.
        """
        if not self.passes:  # the steps have gathered their batches
            return 0.0
        first = min(waited, self.first_waits)
        others = self.images - self.first_images
        later = (waited - first) / others * (images - self.first_images / self.passes) if others else 0.0
        return first / self.passes + later
