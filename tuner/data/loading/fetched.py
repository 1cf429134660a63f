"""What images from a file and from worker processes have in common: they are fetched batch by batch."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.data.images import Images
from tuner.data.loading.decoder import Decoder
from tuner.data.loading.source import batch_of, on_device, order_of
from tuner.interfaces import Batch, Targets


@dataclass(frozen=True)
class EncodedSet:
    """A set whose images are decoded.

    Args:
        names: The names of the images.
        targets: Their targets, but for those that are decoded with the images.
        decoder: Decodes them.
        draws: How likely each one is drawn; see `order_of`.
    """

    names: list[str]
    targets: Targets
    decoder: Decoder
    draws: Tensor | None = None


class Fetched(ABC):
    """A `Source` whose images are fetched batch by batch.

    Args:
        of: The set.
        device: The device of the batches.
    """

    def __init__(self, of: EncodedSet, device: torch.device) -> None:
        self._names = of.names
        self._targets = {name: target.to(device) for name, target in of.targets.items()}
        self._decoder = of.decoder
        self._device = device
        self._draws = of.draws

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def image_bytes(self) -> int:
        return self._decoder.image_bytes

    @property
    def is_read(self) -> bool:
        return True

    @property
    def gather(self) -> None:
        """Nothing: they are fetched."""
        return None

    def __len__(self) -> int:
        return len(self._names)

    def first(self, count: int) -> Images:
        images, targets = self._decoder.parts(self._first(min(count, len(self))).to(self._device))
        return Images(images, {name: target[:count] for name, target in self._targets.items()} | targets)

    def batches(self, size: int, seed: int | None = None) -> Iterator[Batch]:
        order = torch.arange(len(self)) if seed is None else self.order(seed)
        return self.batches_of(torch.split(order, size))

    def order(self, seed: int) -> Tensor:
        return order_of(len(self), seed, self._draws)

    def batches_of(self, parts: Sequence[Tensor]) -> Iterator[Batch]:
        for index, decoded in zip(on_device(parts, self._device), self._fetch(list(parts)), strict=True):
            images, targets = self._decoder.parts(decoded)
            yield batch_of(images, {name: target[index] for name, target in self._targets.items()} | targets)

    @abstractmethod
    def _first(self, count: int) -> Tensor:
        """The first images."""

    @abstractmethod
    def _fetch(self, parts: list[Tensor]) -> Iterator[Tensor]:
        """Fetch images by their indices, batch by batch, to the device."""
