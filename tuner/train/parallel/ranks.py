"""What the training loop asks of the processes that train a trial together, and how one process alone answers."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from tuner.data.images import ImageData
from tuner.data.loading.source import Source
from tuner.interfaces import Batch, Model
from tuner.tasks.base import TaskMeter
from tuner.train.step.recording import Recorder

T = TypeVar("T")


class Ranks(Protocol):
    """The processes that train a trial together; each one has such an object, and calls the same methods in turn."""

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process."""

    @property
    def counts(self) -> bool:
        """Whether this process measures the current micro-batch, which others may compute, too."""

    @property
    def recorder(self) -> Recorder | None:
        """What records the steps; None for that of the device."""

    def measured(self, batch: Batch) -> int:
        """The samples of a batch of `batches` that this process measures."""

    def prepared(self, model: nn.Module) -> nn.Module:
        """A new model with the layers that training in several processes needs."""

    def forward(self, model: nn.Module) -> Model:
        """The model as it is trained: its gradients are the means over the processes."""

    def augmentation(self, data: ImageData) -> Callable[[Batch], Batch]:
        """Changes this process's share of a batch of `batches` as it would be changed in the whole batch."""

    def batches(self, data: Source, size: int, micro_size: int, steps: int, seed: int) -> Iterator[Batch]:
        """The share of this process of the batches of an epoch.

        Args:
            data: The training set.
            size: Samples of a batch over all processes.
            micro_size: Samples of a micro-batch over all processes.
            steps: Number of batches.
            seed: Seed of the order of the samples.
        """

    def micro_batches(self, batch: Batch, size: int) -> Iterator[tuple[Batch, float]]:
        """The share of this process of the micro-batches of an augmented batch.

        Args:
            batch: What `augmentation` returned.
            size: Samples of a micro-batch over all processes.

        Returns:
            Each one with the weight of its loss, a mean over its samples, in the mean over the batch.
        """

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""

    def portion(self, data: Source) -> Source:
        """The part of a set that this process measures."""

    def metrics_of(self, meter: TaskMeter) -> dict[str, float]:
        """The metrics of what the meters of all processes have seen."""

    def agree(self, model: nn.Module) -> None:
        """Give the buffers of the model, such as running statistics, the values of those of the first process."""

    def first(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call a function in the first process, while the others wait; what it returns, in all of them."""


class OneRank:
    """One process, which trains a trial alone; see `Ranks`."""

    is_alone = True
    counts = True
    recorder = None

    def measured(self, batch: Batch) -> int:
        return len(batch)

    def prepared(self, model: nn.Module) -> nn.Module:
        return model

    def forward(self, model: nn.Module) -> Model:
        return model

    def augmentation(self, data: ImageData) -> Callable[[Batch], Batch]:
        return data.augmentation

    def batches(self, data: Source, size: int, micro_size: int, steps: int, seed: int) -> Iterator[Batch]:
        return data.batches(size, seed)

    def micro_batches(self, batch: Batch, size: int) -> Iterator[tuple[Batch, float]]:
        for each in batch.micro_batches(size):
            yield each, len(each) / len(batch)

    def mean(self, values: Tensor) -> Tensor:
        return values

    def portion(self, data: Source) -> Source:
        return data

    def metrics_of(self, meter: TaskMeter) -> dict[str, float]:
        return meter.compute()

    def agree(self, model: nn.Module) -> None:
        """Nobody is to agree."""

    def first(self, call: Callable[..., T], *arguments: Any) -> T:
        return call(*arguments)


ONE_RANK = OneRank()
"""A process that trains a trial alone."""
