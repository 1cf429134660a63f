"""Which samples of a batch, and of a set, a rank computes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.data.loading.source import Source
from tuner.interfaces import Batch, micro_batch_sizes


@dataclass(frozen=True)
class Piece:
    """What a rank computes of a micro-batch.

    Args:
        rows: The places of its samples in the whole batch.
        weight: Weight of its loss, a mean over its samples, so that the mean over the ranks is the loss of the batch.
        counts: Whether this rank measures it.
    """

    rows: slice
    weight: float
    counts: bool


def pieces_of(count: int, micro_size: int, rank: int, ranks: int) -> list[Piece]:
    """Which samples of a batch one of the ranks computes, micro-batch by micro-batch.

    All ranks have as many micro-batches, of which each computes an equal share, up to one sample: batch normalization
    over all ranks then sees the micro-batches of one process. All ranks compute the whole of a micro-batch that has
    fewer than two samples for each: batch normalization cannot be trained on one sample, and no rank may stand idle
    when the others average gradients.

    Args:
        count: Samples of the batch.
        micro_size: Samples of a micro-batch over all ranks.
        rank: The number of the rank, from 0.
        ranks: How many there are.
    """
    pieces = []
    start = 0
    for size in micro_batch_sizes(count, micro_size):
        if size < 2 * ranks:
            pieces.append(Piece(slice(start, start + size), size / count, counts=rank == 0))
        else:
            first, end = (start + size * number // ranks for number in (rank, rank + 1))
            pieces.append(Piece(slice(first, end), ranks * (end - first) / count, counts=True))
        start += size
    return pieces


@dataclass(frozen=True)
class Shard(Batch):
    """The samples of a batch that a rank computes; all of them before augmentation, if that needs them.

    Args:
        pieces: Which samples of the whole batch a rank computes.
        count: Samples of the whole batch.
    """

    pieces: tuple[Piece, ...] = ()
    count: int = 0

    @property
    def places(self) -> list[slice]:
        """The places in the whole batch of the samples that the rank computes."""
        return [piece.rows for piece in self.pieces]

    @property
    def measured(self) -> int:
        """How many samples the rank measures."""
        return sum(piece.rows.stop - piece.rows.start for piece in self.pieces if piece.counts)

    def computed_alone(self) -> Iterator[tuple[Batch, Piece]]:
        """The samples of each micro-batch, after augmentation."""
        start = 0
        for piece in self.pieces:
            size = piece.rows.stop - piece.rows.start
            yield self.rows([slice(start, start + size)]), piece
            start += size


class Portion:
    """A `Source` of the part of a set that a rank measures: samples beside each other, in the order of the set.

    Args:
        data: The set.
        rank: The number of the rank, from 0; the first one has as many samples as any.
        ranks: How many there are.
    """

    def __init__(self, data: Source, rank: int, ranks: int) -> None:
        share = -(-len(data) // ranks)
        self._data = data
        self._places = torch.arange(len(data))[rank * share : (rank + 1) * share]

    @property
    def device(self) -> torch.device:
        return self._data.device

    @property
    def image_bytes(self) -> int:
        return self._data.image_bytes

    @property
    def is_read(self) -> bool:
        return self._data.is_read

    @property
    def gather(self) -> None:
        """Nothing: `batches` makes them, of which each rank measures its own."""
        return None

    def __len__(self) -> int:
        return len(self._places)

    def first(self, count: int) -> Source:
        return self._data.first(count)

    def batches(self, size: int, seed: int | None = None) -> Iterator[Batch]:
        places = self._places if seed is None else self._places[self.order(seed)]
        return self._data.batches_of(torch.split(places, size) if len(places) else ())

    def order(self, seed: int) -> Tensor:
        return torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))

    def batches_of(self, parts: Sequence[Tensor]) -> Iterator[Batch]:
        return self._data.batches_of([self._places[part] for part in parts])
