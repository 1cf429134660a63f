"""Images and their targets in memory, and the base class of datasets that fit in memory."""

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

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Images:
    """Images, uint8 (N, C, H, W) in [0, 255], and their targets, on the same device."""

    images: Tensor
    targets: Targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor | slice) -> "Images":
        return Images(self.images[index], {name: target[index] for name, target in self.targets.items()})

    def to(self, device: torch.device) -> "Images":
        """Copy the images and targets to a device."""
        return Images(self.images.to(device), {name: target.to(device) for name, target in self.targets.items()})

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Targets]]:
        """Iterate over batches of float32 images in [0, 1], in channels-last memory format, and their targets.

        Args:
            size: Samples per batch; the last batch may be smaller.
            order: Indices (N,) of the samples in the order of iteration; None for the order in memory.
        """
        if order is not None:
            order = order.to(self.images.device)
        for start in range(0, len(self), size):
            section = slice(start, start + size)
            batch = self[section if order is None else order[section]]
            images = batch.images.to(torch.float32).div_(255)
            yield images.contiguous(memory_format=torch.channels_last), batch.targets


@dataclass(frozen=True)
class Description:
    """What MLflow records of a dataset.

    Args:
        name: Name, such as ``mnist``.
        digest: Digest of the files and of the settings that change what a trial reads; empty if unknown.
        source: Where the dataset comes from: a URL, or the code that reads it.
        sizes: Number of images in the ``train``, ``validation`` and ``test`` set; empty if unknown.
    """

    name: str
    digest: str
    source: str
    sizes: dict[str, int]


class ImageData(Config):
    """Labelled images that fit in memory."""

    batch_size: int = Field(64, ge=1)
    """Images per training batch."""
    limit: int | None = Field(None, ge=1)
    """Largest number of training images; null for all. Validation and test sets are not limited."""
    canvas: int | None = Field(None, ge=1, le=1024)
    """Side in pixels of an empty square on which each image is placed at random; adds the target ``position``."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the validation split and of the positions on the canvas; the same in all trials unless it is searched."""

    _classes: tuple[str, ...] = tuple("0123456789")

    @property
    def user_code(self) -> list[str]:
        """The user's code that reads the dataset, as ``pkg.module:name``."""
        return []

    @property
    @abstractmethod
    def image(self) -> ImageShape:
        """Shape and statistics of the images."""

    @property
    def targets(self) -> dict[str, Target]:
        """The targets by name: ``label`` and, if there is a canvas, ``position``."""
        targets = {"label": Target(len(self._classes), classes=self._classes)}
        return targets if self.canvas is None else targets | {"position": Target(2, unit="pixels")}

    @property
    def preprocessing(self) -> list[dict[str, Any]]:
        """The steps that are applied to each image before it is scaled to [0, 1], in order."""
        return [] if self.canvas is None else [{"kind": "canvas", "side": self.canvas}]

    @property
    @abstractmethod
    def validation_size(self) -> int:
        """Number of images in the validation set."""

    @abstractmethod
    def describe(self) -> Description:
        """Describe the dataset for the record, without loading it if that is possible."""

    @abstractmethod
    def prepare(self) -> "tuple[ImageData, str]":
        """Make the files of the dataset available on this node.

        Returns:
            The dataset to use, which ``offline`` may replace by another one, and a message for the user, or ``""``.

        Raises:
            UserError: The files are damaged, or missing and cannot be downloaded.
        """

    @abstractmethod
    def location(self) -> str:
        """A phrase that says where the files are, or will be."""

    @property
    def is_available(self) -> bool:
        """Whether the files are on this node; if not, `prepare` downloads them."""
        return True

    @abstractmethod
    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        """Read the original training or test set.

        Returns:
            Images, uint8 (N, H, W) or (N, C, H, W), and labels, int64 (N,).
        """

    def load(self) -> tuple[Images, Images]:
        """Load the training and the validation set, a seeded, stratified split of the original training set."""
        train, validation = _train_and_validation(self.model_copy(update={"limit": None, "batch_size": 1}))
        return train[: self.limit], validation

    def load_test(self) -> Images:
        """Load the test set."""
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
        np.arange(len(labels)), test_size=data.validation_size, stratify=labels.numpy(), random_state=data.seed
    )
    # The two sets are views of one copy, so that the original tensors can be freed.
    order = torch.from_numpy(np.concatenate([train, validation]))
    both = data._placed(images[order], labels[order], seed=(data.seed, 1))
    return both[: len(train)], both[len(train) :]
