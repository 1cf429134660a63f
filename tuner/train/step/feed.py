"""The batches that the steps of a training get: read before a step, or gathered by the step itself."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import islice
from typing import Self

from torch import Tensor

from tuner.data.loading.source import Gather, Source
from tuner.interfaces import Batch
from tuner.train.parallel.ranks import Ranks


@dataclass(frozen=True)
class StepBatch:
    """The batch of one step, which the step makes of tensors.

    Args:
        samples: How many of its samples this process measures.
        kind: What makes it: it is made alike of tensors of the same form if this is the same.
        given: The tensors that the host hands over; none if the step gathers the batch from what lies on the device.
        make: Makes the batch of such tensors. It computes on the device alone, so that it can be recorded.
    """

    samples: int
    kind: Hashable
    given: Sequence[Tensor]
    make: Callable[[Sequence[Tensor]], Batch]

    @classmethod
    def of(cls, batch: Batch, samples: int) -> Self:
        """A batch that is there.

        Args:
            batch: The batch, which is not augmented yet.
            samples: How many of its samples this process measures.
        """
        assert batch.mixed is None, "it is not augmented yet"
        names = list(batch.targets)

        def make(given: Sequence[Tensor]) -> Batch:
            return replace(batch, inputs=given[0], targets=dict(zip(names, given[1:], strict=True)))

        return cls(samples, tuple(names), (batch.inputs, *(batch.targets[name] for name in names)), make)

    @property
    def form(self) -> Hashable:
        """What of it a record of a step depends on."""
        return self.kind, *((each.shape, each.stride(), each.dtype, each.device) for each in self.given)


class Feed:
    """Hands the batches of a training to its steps. If the last one had one sample, that joins the batch before it.

    Args:
        ranks: The processes that train together.
        size: Samples of a full batch over all of them.
        steps: Steps of an epoch.
        number: The number of the current step in its epoch, int64 (1,) on the device of the model; steps count it.
    """

    def __init__(self, ranks: Ranks, size: int, steps: int, number: Tensor) -> None:
        self._ranks, self._size, self._steps, self._number = ranks, size, steps, number
        self._data: Source | None = None
        self._table: _Table

    def batches(self, data: Source, micro_size: int, seed: int) -> Iterator[StepBatch]:
        """Iterate over the batches of an epoch.

        Args:
            data: The training set, on the device.
            micro_size: Samples of a micro-batch over all processes.
            seed: Seed of the order of the samples.
        """
        gather = data.gather if self._ranks.is_alone else None
        if gather is None:
            batches = self._ranks.batches(data, self._size, micro_size, self._steps, seed)
            for batch in islice(batches, self._steps - 1):
                yield StepBatch.of(batch, self._ranks.measured(batch))
            last = reduce(Batch.joined, batches)
            yield StepBatch.of(last, self._ranks.measured(last))
            return
        order = data.order(seed)
        if data is not self._data:
            self._data, self._table = data, _Table(gather, len(order), self._size, self._steps, self._number)
        yield from self._table.batches(order)


class _Table:
    """The order of the samples in an epoch, on the device, where each step gathers the samples whose turn it is.

    Args:
        gather: Makes a batch of the samples at some places.
        count: Samples of an epoch.
        size: Samples of a full batch.
        steps: Steps of an epoch, of which all but the last one have full batches.
        number: The number of the current step.
    """

    def __init__(self, gather: Gather, count: int, size: int, steps: int, number: Tensor) -> None:
        rest = count - (steps - 1) * size
        self._full = number.new_zeros((steps if rest == size else steps - 1, size))
        self._last = number.new_zeros(0 if rest == size else rest)
        self._gather, self._number = gather, number

    def batches(self, order: Tensor) -> Iterator[StepBatch]:
        """The batches of an epoch, whose order is int64 (count,) on the CPU."""
        rows, size = self._full.shape
        # In place: recorded steps read them there.
        self._full.copy_(order[: rows * size].view(rows, size))
        self._last.copy_(order[rows * size :])
        for _ in range(rows):
            yield StepBatch(size, self._gather_full, (), self._gather_full)
        if len(self._last):
            yield StepBatch(len(self._last), self._gather_last, (), self._gather_last)

    def _gather_full(self, given: Sequence[Tensor]) -> Batch:
        return self._gather(self._full.index_select(0, self._number)[0])

    def _gather_last(self, given: Sequence[Tensor]) -> Batch:
        return self._gather(self._last)
