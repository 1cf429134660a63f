"""Images that are decoded in each epoch."""

from collections.abc import Iterator

import torch
from torch import Tensor

from tuner.data.loading.fetched import EncodedSet, Fetched
from tuner.data.loading.workers import DecodingWorkers


class Streamed(Fetched):
    """A `Source` of images that worker processes decode as they are needed.

    Args:
        of: The set.
        workers: The processes that decode; one iteration at a time can use them.
        device: The device of the batches.
    """

    def __init__(self, of: EncodedSet, workers: DecodingWorkers, device: torch.device) -> None:
        super().__init__(of, device)
        self._workers = workers

    def _first(self, count: int) -> Tensor:
        return self._workers.decode_here(self._names[:count])

    def _fetch(self, parts: list[Tensor]) -> Iterator[Tensor]:
        chunks = self._workers.decode(self._chunks(parts))
        for part in parts:
            found = [next(chunks).to(self._device, non_blocking=True) for _ in range(0, len(part), self._workers.chunk)]
            yield found[0] if len(found) == 1 else torch.cat(found)

    def _chunks(self, parts: list[Tensor]) -> Iterator[list[str]]:
        """Split each batch into chunks, so that several processes decode one batch."""
        for part in parts:
            for start in range(0, len(part), self._workers.chunk):
                yield [self._names[each] for each in part[start : start + self._workers.chunk].tolist()]
