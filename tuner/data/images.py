"""Images and their targets in memory, and what every dataset that fits there has in common."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tuner.config import Config
from tuner.data.canvas import place
from tuner.interfaces import ImageShape, Target, Targets

Part = Literal["train", "test"]


@dataclass(frozen=True)
class Images:
    """Images (N, C, H, W), uint8 in [0, 255], and their targets, all on one device."""

    images: Tensor
    targets: Targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor | slice) -> "Images":
        return Images(self.images[index], {name: target[index] for name, target in self.targets.items()})

    def to(self, device: torch.device) -> "Images":
        """The same on another device."""
        return Images(self.images.to(device), {name: target.to(device) for name, target in self.targets.items()})

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Targets]]:
        """Batches of float32 images in [0, 1], channels last in memory, and their targets.

        Args:
            size: Samples a batch; the last batch holds what is left.
            order: Indices (N,) in the order in which they are wanted; None takes the samples as they lie.
        """
        if order is not None:
            order = order.to(self.images.device)
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            batch = self[part if order is None else order[part]]
            images = batch.images.to(torch.float32).div_(255)
            yield images.contiguous(memory_format=torch.channels_last), batch.targets


@dataclass(frozen=True)
class Description:
    """A dataset by its true name, for the record.

    Args:
        name: Its name, such as ``mnist``.
        digest: A digest of its files and of how they were split and placed; empty where nobody looked.
        source: Where it comes from.
        sizes: Number of images in the training, validation and test set; none where nobody looked.
    """

    name: str
    digest: str
    source: str
    sizes: dict[str, int]


class ImageData(Config):
    """A dataset of labelled images that fits in memory."""

    batch_size: int = Field(64, ge=1)
    """Images a training batch."""
    limit: int | None = Field(None, ge=1)
    """Cap on the training images alone; validation and test sets stay whole."""
    canvas: int | None = Field(None, ge=1, le=1024)
    """Side in pixels of an empty square on which each image gets a random place; adds the target ``position``."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the validation split and of the places on the canvas: the same for all trials unless it is searched."""

    _classes: tuple[str, ...] = tuple("0123456789")

    @property
    def user_code(self) -> list[str]:
        """The code of the user's own that reads it, as ``pkg.module:name``."""
        return []

    @property
    @abstractmethod
    def image(self) -> ImageShape:
        """Shape and statistics of its images."""

    @property
    def targets(self) -> dict[str, Target]:
        """What there is to learn: ``label`` and, on a canvas, ``position``."""
        targets = {"label": Target(len(self._classes), classes=self._classes)}
        return targets if self.canvas is None else targets | {"position": Target(2, unit="pixels")}

    @property
    def preprocessing(self) -> list[dict[str, Any]]:
        """What is done to each image of the dataset before its bytes are scaled to [0, 1], in order."""
        return [] if self.canvas is None else [{"kind": "canvas", "side": self.canvas}]

    @property
    @abstractmethod
    def held_out(self) -> int:
        """Number of images in the validation set."""

    @abstractmethod
    def describe(self) -> Description:
        """Its name and digest, without reading it."""

    @abstractmethod
    def prepare(self) -> "tuple[ImageData, str]":
        """Make the data available on this machine.

        Returns:
            The dataset that there is (another one where ``offline`` says so), and what the user must be told about it.

        Raises:
            UserError: The data is damaged, or there is none and it cannot be had.
        """

    @abstractmethod
    def location(self) -> str:
        """Where the data is, or will be, in words."""

    @property
    def is_here(self) -> bool:
        """Whether the data is on this machine; else `prepare` downloads it."""
        return True

    @abstractmethod
    def read(self, part: Part) -> tuple[Tensor, Tensor]:
        """Images (N, H, W) or (N, C, H, W) as uint8 and labels (N,) as int64 of the original training or test set."""

    def load(self) -> tuple[Images, Images]:
        """The training and the validation set. The split is seeded and stratified; neither shares an image."""
        train, validation = _train_and_validation(self.model_copy(update={"limit": None, "batch_size": 1}))
        return train[: self.limit], validation

    def load_test(self) -> Images:
        """The test set."""
        return self._placed(*self.read("test"), seed=(self.seed, 2))

    def _placed(self, images: Tensor, labels: Tensor, seed: tuple[int, int]) -> Images:
        if self.canvas is None:
            return Images(images if images.ndim == 4 else images.unsqueeze(1), {"label": labels})
        placed, positions = place(images, self.canvas, np.random.default_rng(seed))
        return Images(placed.unsqueeze(1), {"label": labels, "position": positions})


@lru_cache(maxsize=2)  # a worker runs many trials on the same data
def _train_and_validation(data: ImageData) -> tuple[Images, Images]:
    from sklearn.model_selection import train_test_split

    images, labels = data.read("train")
    train, validation = train_test_split(
        np.arange(len(labels)), test_size=data.held_out, stratify=labels.numpy(), random_state=data.seed
    )
    # One copy in one order, split by views: the parts do not hold the originals in memory.
    order = torch.from_numpy(np.concatenate([train, validation]))
    whole = data._placed(images[order], labels[order], seed=(data.seed, 1))
    return whole[: len(train)], whole[len(train) :]
