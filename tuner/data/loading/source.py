"""What the training loop reads: the images of one set, wherever they lie."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tuner.interfaces import Batch, Targets

Gather = Callable[[Tensor], Batch]
"""Makes a batch of the samples at some places of a set, int64 (n,) on its device. Nothing waits for the device."""


class Source(Protocol):
    """The images of one set and their targets. Two sources of the same set give the same batches, bit by bit."""

    @property
    def device(self) -> torch.device:
        """The device of the batches."""

    @property
    def image_bytes(self) -> int:
        """Bytes of an image before it is scaled."""

    @property
    def is_read(self) -> bool:
        """Whether each batch is read or decoded anew, which takes the host time, and does not lie on the device."""

    @property
    def gather(self) -> Gather | None:
        """Makes a batch as `batches` does, where all samples lie on the device; None if only `batches` makes them."""

    def __len__(self) -> int: ...

    def first(self, count: int) -> "Source":
        """The first `count` samples, in memory on the device."""

    def batches(self, size: int, seed: int | None = None) -> Iterator[Batch]:
        """Iterate over all samples in batches whose images are in channels-last memory format.

        Args:
            size: Samples per batch; the last batch may be smaller.
            seed: Seed of the order of the samples; None for the order of the set.
        """

    def order(self, seed: int) -> Tensor:
        """The order of the samples for a seed, int64 (N,) on the CPU: their places in the set."""

    def batches_of(self, parts: Sequence[Tensor]) -> Iterator[Batch]:
        """Iterate over batches of some samples, as `batches` does.

        Args:
            parts: The places in the set of the samples of each batch, int64 on the CPU.
        """


@dataclass(frozen=True)
class LoaderResources:
    """What the sources of one trial may take.

    Args:
        workers: Processes that may decode images; None for one less than torch's threads, which is the trial's cores
            without the one of its training.
        trials_per_host: Trials that run at once on this host, and share its memory.
        trials_per_gpu: Trials that run at once on the trial's GPU, and share its memory.
    """

    workers: int | None = None
    trials_per_host: int = 1
    trials_per_gpu: int = 1

    @classmethod
    def of(cls, cpu: float, gpu: float, trials: int, ranks: int = 1) -> "LoaderResources":
        """What each process of a trial on this host may take.

        Args:
            cpu: The trial's cores.
            gpu: Its GPUs, or its share of one.
            trials: Trials that run at once, on all hosts.
            ranks: Processes of the trial, which train together: each one opens the images.
        """
        from joblib import cpu_count

        per_host = ranks * max(1, min(trials, int(cpu_count() / cpu)))
        return cls(max(0, int(cpu / ranks) - 1), per_host, max(1, round(1 / gpu)) if gpu else 1)

    @property
    def processes(self) -> int:
        """Processes that may decode images."""
        return max(0, torch.get_num_threads() - 1) if self.workers is None else self.workers


ALONE = LoaderResources()
"""The resources of a trial that has the host to itself."""


def order_of(count: int, seed: int, draws: Tensor | None = None) -> Tensor:
    """The samples of a set in an epoch, int64 (count,): each one once in random order, or drawn with replacement.

    Args:
        count: Number of samples.
        seed: Seed of the order.
        draws: How likely each sample is drawn, float64 (count,), on the CPU; None if each one is drawn once.
    """
    generator = torch.Generator().manual_seed(seed)
    if draws is None:
        return torch.randperm(count, generator=generator)
    sums = draws.cumsum(0)  # torch.multinomial takes at most 2**24 samples
    return torch.searchsorted(sums, torch.rand(count, generator=generator, dtype=torch.float64) * sums[-1], right=True)


def on_device(parts: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    """Copy the places of the samples of batches to a device, at once."""
    return torch.split(torch.cat([*parts]).to(device), [len(part) for part in parts]) if parts else ()


def batch_of(images: Tensor, targets: Targets) -> Batch:
    """A batch of images, uint8 (N, C, H, W), which are scaled to [0, 1] on their device."""
    scaled = images.to(torch.float32).div_(255)
    return Batch(scaled.contiguous(memory_format=torch.channels_last), targets)
