"""A dataset of the user's own."""

import hashlib
import json
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from tuner.config_keys import check_unambiguous
from tuner.data.images import Description, ImageData, Part
from tuner.errors import Mistakes, Problem
from tuner.interfaces import ImageShape, Target
from tuner.target_name import TargetName
from tuner.user_code import may_be_called, resolve_maker


class ImportedData(ImageData):
    """Any callable that takes ``train=True`` or ``False`` and returns a dataset of (image, class): torchvision's do.

    An image is a PIL image, or an array or tensor (H, W), (H, W, C) or (C, H, W): bytes in [0, 255] or floats in
    [0, 1]. All images have the same shape, and are kept in memory.
    """

    kind: Literal["import"] = "import"
    target: TargetName
    """The dataset's class, or a function that makes one, as ``pkg.module:name``: beside the YAML file, or installed."""
    args: dict[str, Any] = Field(default_factory=dict)
    """What it is called with, beside ``train``."""
    validation: float = Field(0.1, gt=0, lt=1)
    """Share of the training images that is held out to validate on, stratified by class."""
    canvas: None = None
    """Not for a dataset of one's own."""

    @field_validator("args")
    @classmethod
    def _no_name_twice(cls, args: dict[str, Any]) -> dict[str, Any]:
        check_unambiguous(args)
        return args

    @model_validator(mode="after")
    def _can_be_read(self) -> "ImportedData":
        if not may_be_called():
            return self
        for train in (True, False):
            problem = self._arrays(train)[1]
            if problem:
                raise Mistakes(problem)
        classes = self.targets["label"].size  # the split is stratified: each class needs a place on both sides
        if min(self.held_out, len(self._read(True)[0]) - self.held_out) < classes:
            message = f"{self.validation:g} of {len(self._read(True)[0])} images is too few to validate on"
            raise Mistakes(Problem(message, "validation"))
        return self

    @property
    def image(self) -> ImageShape:
        images = self._read(True)[0]
        some = images[:1000].double() / 255
        mean, std = some.mean(dim=(0, 2, 3)), some.std(dim=(0, 2, 3)).clamp_min(1e-3)
        channels, height, width = images.shape[1:]
        return ImageShape(channels, height, width, tuple(mean.tolist()), tuple(std.tolist()))

    @property
    def targets(self) -> dict[str, Target]:
        return {"label": Target(int(self._read(True)[1].max()) + 1)}

    @property
    def held_out(self) -> int:
        return round(self.validation * len(self._read(True)[0]))

    def describe(self) -> Description:
        name = self.target.partition(":")[2]
        if not may_be_called():
            return Description(name, "", self.target, {})
        images, labels = self._read(True)
        how = hashlib.md5(f"{self.seed} {self.validation}".encode())
        how.update(images[:: max(1, len(images) // 1000)].numpy().tobytes() + labels.numpy().tobytes())
        train = len(images) - self.held_out
        sizes = {"train": min(train, self.limit or train), "validation": self.held_out}
        sizes["test"] = len(self._read(False)[0])
        return Description(name, how.hexdigest()[:8], self.target, sizes)

    def prepare(self) -> tuple[ImageData, str]:
        return self, ""

    def location(self) -> str:
        return f"what {self.target} gives"

    def read(self, part: Part) -> tuple[Tensor, Tensor]:
        return self._read(part == "train")

    def _read(self, train: bool) -> tuple[Tensor, Tensor]:
        arrays, problem = self._arrays(train)
        assert arrays is not None, problem
        return arrays

    def _arrays(self, train: bool) -> "tuple[tuple[Tensor, Tensor] | None, Problem | None]":
        return _read(self.target, json.dumps(self.args, sort_keys=True, default=str), train, _Args(self.args))

    def __hash__(self) -> int:
        return hash((self.target, self.seed, self.validation))


class _Args(dict[str, Any]):
    """Arguments that a cache passes by: their text is part of its key."""

    def __hash__(self) -> int:  # type: ignore[override]
        return 0


@lru_cache(maxsize=4)  # the training and the test set, of this dataset and one more
def _read(target: str, args: str, train: bool, given: _Args) -> tuple[tuple[Tensor, Tensor] | None, Problem | None]:
    """All images (N, C, H, W) as bytes and their classes (N,); or what is wrong with them."""
    try:
        make = resolve_maker(target)
    except Mistakes as mistakes:
        return None, mistakes.problems[0]
    try:
        dataset = make(train=train, **given)
        pairs = [(_bytes(image), int(label)) for image, label in (dataset[i] for i in range(len(dataset)))]
        images = torch.from_numpy(np.stack([image for image, _ in pairs]))
    except Exception as error:
        shown = ", ".join([f"train={train}", *(f"{name}={value!r}" for name, value in given.items())])
        message = f"{target}({shown}) cannot be read as pairs of image and class: {type(error).__name__}: {error}"
        return None, Problem(message, "target")
    return (images, torch.tensor([label for _, label in pairs])), None


def _bytes(image: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """One image as bytes (C, H, W)."""
    pixels = np.asarray(image)
    if np.issubdtype(pixels.dtype, np.floating):
        pixels = np.rint(pixels * 255).clip(0, 255)
    pixels = pixels.astype(np.uint8)
    if pixels.ndim == 2:
        return pixels[None]
    # Channels are few; they stand last in a picture and first in a tensor.
    return np.moveaxis(pixels, -1, 0) if pixels.shape[0] > 4 and pixels.shape[-1] <= 4 else pixels
