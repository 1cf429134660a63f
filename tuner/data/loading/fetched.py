"""What images from a file and from worker processes have in common: they are fetched batch by batch."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from tuner.data.images import Images
from tuner.data.loading.source import batch_of, order_of
from tuner.interfaces import Batch, Targets


class Fetched(ABC):
    """A `Source` whose images are fetched batch by batch.

    Args:
        count: Number of images.
        targets: Their targets.
        device: The device of the batches.
        draws: How likely each image is drawn; see `order_of`.
    """

    def __init__(self, count: int, targets: Targets, device: torch.device, draws: Tensor | None) -> None:
        self._count = count
        self._targets = {name: target.to(device) for name, target in targets.items()}
        self._device = device
        self._draws = draws

    @property
    def device(self) -> torch.device:
        return self._device

    def __len__(self) -> int:
        return self._count

    def first(self, count: int) -> Images:
        images = self._first(min(count, len(self))).to(self._device)
        return Images(images, {name: target[:count] for name, target in self._targets.items()})

    def batches(self, size: int, seed: int | None = None) -> Iterator[Batch]:
        order = torch.arange(len(self)) if seed is None else order_of(len(self), seed, self._draws)
        on_device = order.to(self._device)
        sections = [slice(start, start + size) for start in range(0, len(self), size)]
        fetched = self._fetch([order[section] for section in sections])
        for section, images in zip(sections, fetched, strict=True):
            index = on_device[section]
            yield batch_of(images, {name: target[index] for name, target in self._targets.items()})

    @abstractmethod
    def _first(self, count: int) -> Tensor:
        """The first images."""

    @abstractmethod
    def _fetch(self, parts: list[Tensor]) -> Iterator[Tensor]:
        """Fetch images by their indices, batch by batch, to the device."""
