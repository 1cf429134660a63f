"""Datasets that the user's code reads."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from tuner.config_keys import check_unambiguous
from tuner.data.images import Description, ImageData, Split
from tuner.errors import Mistakes, Problem
from tuner.interfaces import ImageShape, Target
from tuner.target_name import TargetName
from tuner.user_code import folders, imports_allowed, in_experiment_folder, resolve_factory


class ImportedData(ImageData):
    """Your own dataset: a callable that takes ``train=True`` or ``False`` and returns a dataset of (image, class).

    Most datasets of torchvision have this form. An image is a PIL image, or an array or tensor (H, W), (H, W, C) or
    (C, H, W): bytes in [0, 255] or floats in [0, 1]. All images have the same shape and are kept in memory.
    """

    kind: Literal["import"] = "import"
    target: TargetName
    """The class or function that returns the dataset, as ``pkg.module:name``: beside the YAML file, or installed."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of the callable."""
    validation: float = Field(0.1, gt=0, lt=1)
    """Share of the training images that is held out as the validation set, stratified by class."""
    canvas: None = None
    """Not available for your own dataset."""

    @field_validator("args")
    @classmethod
    def _no_name_twice(cls, args: dict[str, Any]) -> dict[str, Any]:
        check_unambiguous(args)
        return args

    @model_validator(mode="after")
    def _can_be_read(self) -> "ImportedData":
        if not imports_allowed():
            return self
        for train in (True, False):
            found = self._found(train)
            if isinstance(found, Problem):
                raise Mistakes(found)
        classes = self.targets["label"].size  # a stratified split has each class in both sets
        count = len(self._set(True).images)
        if min(self.validation_size, count - self.validation_size) < classes:
            message = f"{self.validation:g} of {count} images leaves fewer images than classes in one of the two sets"
            raise Mistakes(Problem(message, "validation"))
        return self

    @property
    def user_code(self) -> list[str]:
        return [self.target]

    @property
    def image(self) -> ImageShape:
        return self._set(True).image

    @property
    def targets(self) -> dict[str, Target]:
        return {"label": self._set(True).label}

    @property
    def validation_size(self) -> int:
        return round(self.validation * len(self._set(True).images))

    def describe(self) -> Description:
        name = self.target.partition(":")[2]
        if not imports_allowed():
            return Description(name, "", self.target, {})
        images, labels = self.read("train")
        digest = hashlib.md5(f"{self.seed} {self.validation}".encode())
        digest.update(images[:: max(1, len(images) // 1000)].numpy().tobytes() + labels.numpy().tobytes())
        train = len(images) - self.validation_size
        sizes = {"train": min(train, self.limit or train), "validation": self.validation_size}
        sizes["test"] = len(self._set(False).images)
        return Description(name, digest.hexdigest()[:8], self.target, sizes)

    def prepare(self) -> tuple[ImageData, str]:
        return self, ""

    def location(self) -> str:
        return f"read by {self.target}"

    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        images = self._set(split == "train")
        return images.images, images.labels

    def _set(self, train: bool) -> "_Set":
        found = self._found(train)
        assert isinstance(found, _Set), found
        return found

    def _found(self, train: bool) -> "_Set | Problem":
        args = json.dumps(self.args, sort_keys=True, default=str)
        return _read(self.target, args, train, _Args(self.args), folders()[0])

    def __hash__(self) -> int:
        return hash((self.target, self.seed, self.validation))


@dataclass(frozen=True)
class _Set:
    """The training or the test set: images, uint8 (N, C, H, W); labels (N,); the names of the classes, if known."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    @cached_property
    def image(self) -> ImageShape:
        sample = self.images[:1000].double() / 255
        mean, std = sample.mean(dim=(0, 2, 3)), sample.std(dim=(0, 2, 3)).clamp_min(1e-3)
        channels, height, width = self.images.shape[1:]
        return ImageShape(channels, height, width, tuple(mean.tolist()), tuple(std.tolist()))

    @property
    def label(self) -> Target:
        count = int(self.labels.max()) + 1
        return Target(count, classes=self.classes[:count] if len(self.classes) >= count else ())


class _Args(dict[str, Any]):
    """Keyword arguments that `lru_cache` ignores: their JSON text is part of the key instead."""

    def __hash__(self) -> int:  # type: ignore[override]
        return 0


@lru_cache(maxsize=4)  # the training and the test set of two datasets
def _read(target: str, args: str, train: bool, arguments: _Args, folder: Path) -> _Set | Problem:
    """Read all images and labels; return a Problem if that fails.

    `args`, the text of `arguments`, and `folder`, to which relative paths in them refer, are the key of the cache.
    """
    try:
        factory = resolve_factory(target)
    except Mistakes as mistakes:
        return mistakes.problems[0]
    try:
        with in_experiment_folder():
            dataset = factory(train=train, **arguments)
            pairs = [(_bytes(image), int(label)) for image, label in (dataset[i] for i in range(len(dataset)))]
        images = torch.from_numpy(np.stack([image for image, _ in pairs]))
    except Exception as error:
        call = ", ".join([f"train={train}", *(f"{name}={value!r}" for name, value in arguments.items())])
        message = f"{target}({call}) cannot be read as pairs of image and class: {type(error).__name__}: {error}"
        return Problem(message, "target")
    return _Set(images, torch.tensor([label for _, label in pairs]), _names(getattr(dataset, "classes", None)))


def _names(classes: Any) -> tuple[str, ...]:
    """The names of the classes by index, from the attribute of torchvision's datasets; empty if it is not a list."""
    is_listed = isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes)
    return tuple(classes) if is_listed else ()


def _bytes(image: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Convert an image to uint8 (C, H, W)."""
    pixels = np.asarray(image)
    if np.issubdtype(pixels.dtype, np.floating):
        pixels = np.rint(pixels * 255).clip(0, 255)
    pixels = pixels.astype(np.uint8)
    if pixels.ndim == 2:
        return pixels[None]
    # The channels, at most 4, are the last dimension of a picture and the first of a tensor.
    return np.moveaxis(pixels, -1, 0) if pixels.shape[0] > 4 and pixels.shape[-1] <= 4 else pixels
