"""The base class of meters, which compute the metrics of a set from one batch after another."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from tuner.tasks.metrics.samples import Array, Samples

ByClass = dict[str, list[float]]
"""Metrics of single classes: a value for each class, by the name of the metric. NaN is an undefined value."""


@dataclass(frozen=True)
class ErrorKind:
    """The errors of one kind in the outputs for a set.

    Args:
        name: What they are called.
        meaning: What is wrong, in words.
        count: How many there are.
        metric: The metric that they cost.
        cost: By how much it would rise without them.
    """

    name: str
    meaning: str
    count: int
    metric: str
    cost: float


class Meter(ABC):
    """Metrics of a set that are computed from one batch after another."""

    names: ClassVar[tuple[str, ...]]
    """Names of the metrics that `compute` returns."""
    can_be_recorded: ClassVar[bool] = False
    """Whether it has `add`, `count` and `reset`."""
    least_size: ClassVar[int] = 1
    """Smallest number of outputs for which there are metrics; `compute` returns none below it."""

    @abstractmethod
    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch of outputs (N, ...) and their targets (N, ...)."""

    def add(self, output: Tensor, target: Tensor) -> None:
        """Add a batch as `update` does, without counting its samples: no state of this object changes but tensors.

        With `count` and `reset` it is for meters in steps that are recorded, and repeated without Python; those of the
        training set have all three.
        """
        raise NotImplementedError(f"{type(self).__name__} keeps what cannot be recorded")

    def count(self, samples: int) -> None:
        """Count samples that `add` has added, or a record of it."""
        raise NotImplementedError(f"{type(self).__name__} keeps what cannot be recorded")

    def reset(self) -> None:
        """Forget all samples, in place: a record of `add` goes on to add to the same tensors."""
        raise NotImplementedError(f"{type(self).__name__} keeps what cannot be recorded")

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Add the samples of another meter, such as that of another process."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the metrics of all samples so far by name."""

    def by_class(self) -> ByClass:
        """Return the metrics of single classes for all samples so far; empty if there are none.

        The first one says how well a class is found: a report begins with those where it is lowest.
        """
        return {}

    def errors(self) -> list[ErrorKind]:
        """Return the kinds of errors in all samples so far; empty if they are not told apart."""
        return []

    @property
    def confusion(self) -> list[list[int]] | None:
        """The confusion matrix: rows are true classes, columns predicted ones; None if it is not measured."""
        return None

    @abstractmethod
    def keep_samples(self) -> None:
        """Keep from now on what each sample adds, in the order of the samples, which `weighted` and `right` need."""

    @abstractmethod
    def weighted(self, counts: Array) -> Self:
        """A meter that has seen each of the samples, which this one has kept, another number of times.

        Args:
            counts: How often it has seen each sample, int64 (samples,).
        """

    @property
    def right(self) -> Array | None:
        """Whether the answer for each sample that was kept is right, (samples,); None if it is more than that."""
        return None


class SumMeter(Meter):
    """Metrics that are computed from sums over samples: its memory does not grow with the number of samples.

    The sums stay on the device of the outputs. Only reading the metrics waits for that device.
    """

    can_be_recorded = True

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._kept: Samples | None = None
        self.samples = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        self.add(output, target)
        if self._kept is not None:
            with torch.no_grad():
                self._kept.add(self._each(output.cpu(), target.cpu()))
        self.count(len(target))

    @torch.no_grad()
    def add(self, output: Tensor, target: Tensor) -> None:
        if self._sums is None:
            self._sums = self._zeros(output)
        self._add(self._sums, output, target)

    def count(self, samples: int) -> None:
        self.samples += samples

    def reset(self) -> None:
        if self._sums is not None:
            self._sums.zero_()
        self.samples = 0

    def merge(self, other: Self) -> None:
        """Add the samples of another meter, such as that of another process."""
        if other._sums is not None:
            self._sums = other._sums.clone() if self._sums is None else self._sums + other._sums.to(self._sums.device)
        if self._kept is not None and other._kept is not None:
            self._kept.merge(other._kept)
        self.samples += other.samples

    def keep_samples(self) -> None:
        self._kept = Samples()

    def weighted(self, counts: Array) -> Self:
        other = copy(self)
        if self._sums is not None:  # it may have no use for such outputs
            sums = torch.from_numpy(self.kept.sums(counts, self._sums.numel()))
            other._sums = sums.view(self._sums.shape).to(self._sums.dtype)
            other.samples = int(counts.sum())
        return other

    @property
    def kept(self) -> Samples:
        """What each sample has added."""
        assert self._kept is not None, "no sample was kept"
        return self._kept

    def _each(self, output: Tensor, target: Tensor) -> Iterator[tuple[Array, Array]]:
        """The cells of the flattened sums to which each sample of a batch adds, and what it adds."""
        for sample in range(len(target)):
            sums = self._zeros(output)
            self._add(sums, output[sample : sample + 1], target[sample : sample + 1])
            values = sums.flatten().numpy()
            cells = np.flatnonzero(values)
            yield cells, values[cells]

    @property
    def sums(self) -> Tensor:
        """The sums over all samples so far, on the CPU."""
        assert self._sums is not None, "no batch was added"
        return self._sums.cpu()

    def _zeros(self, output: Tensor) -> Tensor:
        """Return the sums over no sample, in float64 where the device has that type: each sample counts then."""
        dtype = torch.float32 if output.device.type == "mps" else torch.float64
        return torch.zeros((), dtype=dtype, device=output.device)

    @abstractmethod
    def _add(self, sums: Tensor, output: Tensor, target: Tensor) -> None:
        """Add a batch to `sums` in place, without waiting for the device."""


class CountMeter(SumMeter):
    """A `SumMeter` that counts: each sample adds 1 to some cells of the flattened sums, to one or several times."""

    @abstractmethod
    def _cells(self, output: Tensor, target: Tensor) -> Tensor:
        """The cells to which each sample adds 1, int64 (N, K)."""

    def _add(self, sums: Tensor, output: Tensor, target: Tensor) -> None:
        # `bincount` would wait for a GPU, because the length of its result depends on the values.
        cells = self._cells(output, target).flatten()
        sums.view(-1).index_add_(0, cells, torch.ones_like(cells, dtype=sums.dtype))

    def _each(self, output: Tensor, target: Tensor) -> Iterator[tuple[Array, Array]]:
        for cells in self._cells(output, target).numpy():
            yield np.unique(cells, return_counts=True)


def macro_of(values: Tensor, counted: Tensor) -> float:
    """Average a metric of classes, float64 (classes,), over those that count, booleans (classes,); 0 if none does."""
    return (torch.where(counted, values, 0.0).sum() / counted.sum().clamp(min=1)).item()


def of_classes(hits: Tensor, positives: Tensor, members: Tensor) -> dict[str, Tensor]:
    """Compute F1, precision and recall of each class, float64 (classes,); 0 where there is nothing to divide by.

    Args:
        hits: Number of samples that have a class and for which it is predicted, by class: float64 (classes,).
        positives: Number of samples for which the class is predicted.
        members: Number of samples that have the class.
    """
    return {
        "f1": 2 * hits / (positives + members).clamp(min=1),
        "precision": hits / positives.clamp(min=1),
        "recall": hits / members.clamp(min=1),
    }


def macro(hits: Tensor, positives: Tensor, members: Tensor) -> dict[str, float]:
    """Average what `of_classes` returns over the classes that occur or are predicted; 0 if there is none."""
    counted = positives + members > 0
    values = of_classes(hits, positives, members)
    return {name: macro_of(values[name], counted) for name in ("precision", "recall", "f1")}
