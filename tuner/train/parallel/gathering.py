"""Batches that all ranks need as a whole, and whose samples take time to make: each rank makes a share of them."""

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from tuner.data.loading.source import Source
from tuner.interfaces import Batch


def gathered_batches(data: Source, parts: Sequence[Tensor], rank: int, ranks: int) -> Iterator[Batch]:
    """Batches of some samples, as `Source.batches_of` makes them; each rank iterates over the same ones.

    Args:
        data: The set, which is the same in all ranks.
        parts: The places in the set of the samples of each batch.
        rank: The number of this rank, from 0.
        ranks: How many there are.
    """
    # A batch with fewer samples than ranks is made by each.
    own = [each if len(each) < ranks else each[_share(len(each), rank, ranks)] for each in parts]
    for whole, batch in zip(parts, data.batches_of(own), strict=True):
        if len(whole) < ranks:
            yield batch
            continue
        sizes = [len(whole[_share(len(whole), number, ranks)]) for number in range(ranks)]
        # Channels last, as they lie in memory.
        inputs = _gathered(batch.inputs.permute(0, 2, 3, 1), sizes).permute(0, 3, 1, 2)
        yield Batch(inputs, {name: _gathered(target, sizes) for name, target in sorted(batch.targets.items())})


def _share(count: int, rank: int, ranks: int) -> slice:
    """The samples of a batch that a rank makes."""
    return slice(count * rank // ranks, count * (rank + 1) // ranks)


def _gathered(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """The values (n, ...) of all ranks, of which each has so many, behind each other."""
    # As bytes: not every type can be sent.
    as_bytes = values.reshape(len(values), -1).contiguous().view(torch.uint8)
    padded = as_bytes.new_zeros((max(sizes), as_bytes.shape[1]))
    padded[: len(as_bytes)] = as_bytes
    found = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(found, padded)
    together = torch.cat([each[:size] for each, size in zip(found, sizes, strict=True)])
    return together.view(values.dtype).reshape(len(together), *values.shape[1:])
