"""Images and their targets in memory, and the base class of all datasets."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from tuner.config import Config
from tuner.data.augmentation import Augment
from tuner.data.decoding import Form
from tuner.data.loading.source import LoaderResources, Source, batch_of, on_device, order_of
from tuner.interfaces import Batch, ClassCounts, ImageShape, Target, Targets

Split = Literal["train", "test"]
OnceRead = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Images:
    """Images, uint8 (N, C, H, W) in [0, 255], and their targets, on the same device."""

    images: Tensor
    targets: Targets
    draws: Tensor | None = None
    """How likely each sample is drawn in a random order, float64 (N,) on the CPU; None if each one is drawn once."""

    @property
    def device(self) -> torch.device:
        """The device of the images."""
        return self.images.device

    @property
    def image_bytes(self) -> int:
        """Bytes of an image."""
        return self.images.shape[1:].numel()

    @property
    def is_read(self) -> bool:
        """No: they lie on the device."""
        return False

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor | slice) -> "Images":
        draws = None if self.draws is None else self.draws[index.cpu() if isinstance(index, Tensor) else index]
        return Images(self.images[index], {name: target[index] for name, target in self.targets.items()}, draws)

    def to(self, device: torch.device) -> "Images":
        """Copy the images and targets to a device."""
        targets = {name: target.to(device) for name, target in self.targets.items()}
        return Images(self.images.to(device), targets, self.draws)

    def first(self, count: int) -> "Images":
        """The first `count` samples."""
        return self[:count]

    def batches(self, size: int, seed: int | None = None) -> Iterator[Batch]:
        """Iterate over batches; see `Source`."""
        if seed is not None:
            yield from self.batches_of(torch.split(self.order(seed), size))
            return
        for part in (self[start : start + size] for start in range(0, len(self), size)):
            yield batch_of(part.images, part.targets)

    def order(self, seed: int) -> Tensor:
        """The order of the samples for a seed; see `Source`."""
        return order_of(len(self), seed, self.draws)

    def batches_of(self, parts: Sequence[Tensor]) -> Iterator[Batch]:
        """Iterate over batches of some samples; see `Source`."""
        for places in on_device(parts, self.device):
            yield self.gather(places)

    def gather(self, places: Tensor) -> Batch:
        """Make a batch of the samples at some places; see `Source`."""
        # On a CPU, this copies whole samples, and is several times as fast as `self[places]`, which copies numbers.
        targets = {name: target.index_select(0, places) for name, target in self.targets.items()}
        return batch_of(self.images.index_select(0, places), targets)


@dataclass(frozen=True)
class Description:
    """What MLflow records of a dataset.

    Args:
        name: Name, such as ``mnist``.
        digest: Digest of the files and of the settings that change what a trial reads; empty if unknown.
        source: Where the dataset comes from: a URL, or the code that reads it.
        sizes: Number of images in the ``train``, ``validation`` and ``test`` set; empty if unknown.
        ignored: What of the user's files is not used, in phrases for the user.
    """

    name: str
    digest: str
    source: str
    sizes: dict[str, int]
    ignored: tuple[str, ...] = ()


class ImageData(Config):
    """Images with targets of any kind, in a training, a validation and a test set."""

    batch_size: Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern="^auto$")] = 64
    """Images per training batch, 1 or more; or auto, to measure before the first trial which number trains fastest."""
    augment: Augment = Augment()
    """Random changes of the training images; none by default."""
    limit: int | None = Field(None, ge=1)
    """Largest number of training images; null for all. Validation and test sets are not limited."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the validation split and of what is placed at random; the same in all trials unless it is searched."""

    @property
    def images_per_batch(self) -> int:
        """`batch_size`, which is a number in every trial that trains."""
        assert isinstance(self.batch_size, int), "auto is replaced by a number before trials train"
        return self.batch_size

    @property
    def user_code(self) -> list[str]:
        """The user's code that reads the dataset, as ``pkg.module:name``."""
        return []

    @property
    def needs_files(self) -> bool:
        """Whether the shapes of the images and targets depend on the user's files, which not every machine has."""
        return False

    @property
    @abstractmethod
    def image(self) -> ImageShape:
        """Shape and statistics of the images."""

    @property
    @abstractmethod
    def targets(self) -> dict[str, Target]:
        """The targets by name."""

    @property
    def files_digest(self) -> str:
        """A digest of the user's files, whichever of them are in which set, the same for a copy; empty for others."""
        return ""

    @property
    def balances_loss(self) -> bool:
        """Whether rare classes are to weigh more in the loss, where that has no class weights of its own."""
        return False

    def class_counts(self) -> dict[str, ClassCounts]:
        """Count how often the classes of each target occur in the training set, which `limit` may have shortened."""
        values = self.targets_in("train")
        counts = {name: ClassCounts.of(target, values[name]) for name, target in self.targets.items()}
        return {name: each for name, each in counts.items() if each is not None}

    def targets_in(self, split: str) -> Targets:
        """The targets of the ``train``, ``validation`` or ``test`` set that are known without decoding its images.

        `limit` may have shortened the training set.
        """
        if split == "test":
            return self.load_test().targets
        train, validation = self.load()
        return (train if split == "train" else validation).targets

    @property
    def augmentation(self) -> Callable[[Batch], Batch]:
        """Changes a training batch at random. What lies at a place of its images moves with them."""
        return partial(self.augment, targets=self.targets)

    def check_augment(self) -> None:
        """Raise Mistakes if these images, their targets, or batches of their size cannot be changed like this."""
        self.augment.check(self.image, self.targets, self.batch_size if isinstance(self.batch_size, int) else 2)

    @property
    def preprocessing(self) -> list[dict[str, Any]]:
        """The steps that are applied to each image before it is scaled to [0, 1], in order."""
        return []

    def in_form(self, form: Form) -> Self | None:
        """A copy whose images, and what lies at places of them, are brought to a form.

        Returns:
            The copy; this dataset itself if its images have that form, and None if they cannot be brought to it.
        """
        image = self.image
        is_same = (image.channels, image.height, image.width) == (form.channels, form.height, form.width)
        return self if is_same else None

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

    def plan(self, device: torch.device, resources: LoaderResources | None) -> str:
        """A phrase that says where the images will lie during a trial; empty if there is no choice.

        Args:
            device: The device of the training.
            resources: What a trial may take; None for a trial on another machine.
        """
        return ""

    @abstractmethod
    def location(self) -> str:
        """A phrase that says where the files are, or will be."""

    @property
    def is_available(self) -> bool:
        """Whether the files are on this node; if not, `prepare` downloads them."""
        return True

    def stays_in_memory(self, device: torch.device, resources: LoaderResources) -> bool:
        """Whether all images lie on the device during a training, which may take these resources."""
        return True

    @contextmanager
    def opened(self, device: torch.device, resources: LoaderResources) -> Iterator[tuple[Source, Source]]:
        """Open the training and the validation set for one training; what they hold is freed at the end.

        Args:
            device: The device of the batches.
            resources: What the sets may take.

        Raises:
            UserError: The images cannot be read.
        """
        train, validation = self.load()
        yield train.to(device), validation.to(device)

    @contextmanager
    def opened_once(self, split: OnceRead, device: torch.device, resources: LoaderResources) -> Iterator[Source]:
        """Open one set, which is read once, as `opened` does for a training."""
        yield self.load_set(split).to(device)

    def load_set(self, split: OnceRead) -> Images:
        """Load one set; see `load` and `load_test`."""
        return self.load_test() if split == "test" else self.load()[split == "validation"]

    def load(self) -> tuple[Images, Images]:
        """Load the training and the validation set."""
        train, validation = _train_and_validation(self._unlimited)
        train = train[: self.limit]
        return replace(train, draws=self.draws(train.targets)), validation

    def draws(self, targets: Targets) -> Tensor | None:
        """How likely each training image is drawn, float64 (N,), by its targets; None if each one is drawn once."""
        return None

    def first(self, count: int) -> Images:
        """The first training images, which are in random order, in memory.

        Raises:
            UserError: One of them cannot be read.
        """
        return self.load()[0].first(count)

    def names(self, split: str) -> list[str]:
        """What identifies each image of a set, in its order, such as the path of its file; empty if nothing does."""
        return []

    @property
    def ignored(self) -> tuple[str, ...]:
        """What of the user's files is not used, in phrases for the user."""
        return ()

    @abstractmethod
    def load_test(self) -> Images:
        """Load the test set."""

    @property
    def _unlimited(self) -> Self:
        """A copy that is the same for all datasets that read the same images: a key of caches."""
        return self.model_copy(update={"limit": None, "batch_size": 1, "augment": Augment()})

    @abstractmethod
    def _both(self) -> tuple[Images, int]:
        """The training set, in random order, followed by the validation set, and the size of the training set."""


@lru_cache(maxsize=1)  # a worker runs many trials on the same data, and has memory for one copy
def _train_and_validation(data: ImageData) -> tuple[Images, Images]:
    # The two sets are views of one copy, so that the original tensors can be freed.
    both, train = data._both()
    return both[:train], both[train:]
