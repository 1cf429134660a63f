"""Decoded images in a file that is mapped into memory."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from tuner.data.loading.fetched import EncodedSet, Fetched
from tuner.data.pixels import Bytes

_AHEAD = 2
"""Batches that are read before they are asked for."""


class Mapped(Fetched):
    """A `Source` of images that lie in a mapped file, of which a thread reads the next batches.

    Args:
        of: The set.
        images: The images of the file, uint8 (N, C, H, W).
        rows: The place of each image of the set in the file, (N,).
        reader: The thread.
        device: The device of the batches.
    """

    def __init__(
        self,
        of: EncodedSet,
        images: Bytes,
        rows: "np.ndarray[tuple[int], np.dtype[np.int64]]",
        reader: ThreadPoolExecutor,
        device: torch.device,
    ) -> None:
        super().__init__(of, device)
        self._images = images
        self._rows = rows
        self._reader = reader

    def _first(self, count: int) -> Tensor:
        return self._read(torch.arange(count))

    def _fetch(self, parts: list[Tensor]) -> Iterator[Tensor]:
        pending: deque[Future[Tensor]] = deque()
        rest = iter(parts)
        for _ in parts:
            for part in islice(rest, _AHEAD + 1 - len(pending)):
                pending.append(self._reader.submit(self._read, part))
            yield pending.popleft().result().to(self._device, non_blocking=True)

    def _read(self, index: Tensor) -> Tensor:
        """Copy images into memory, which is pinned if they go to a GPU."""
        shape = (len(index), *self._images.shape[1:])
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        # "clip" writes straight into the result; the rows are in the file.
        np.take(self._images, self._rows[index.numpy()], axis=0, out=images.numpy(), mode="clip")
        return images
