"""Scenes of handwritten digits, made from MNIST or scikit-learn's digits by a seed: data for dense tasks anywhere."""

from hashlib import md5
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from tuner.data.digits import Digits
from tuner.data.images import Description, ImageData, Images
from tuner.data.mnist import MNIST
from tuner.data.scenes.composition import compose
from tuner.data.splits import held_out
from tuner.errors import Mistakes, Problem
from tuner.interfaces import ImageShape, Target

_SIDE = 28
_HELD_OUT = 0.15
"""Share of the training digits that are in scenes of the validation set alone."""


class MNISTScenes(ImageData):
    """Scenes of several digits in colour, at random places and sizes, over one another and over clutter.

    The target ``mask`` has the class of each pixel: background, or one of the ten digits. The target ``boxes`` has the
    boxes of what is visible of the digits, and ``instances`` which digit each pixel belongs to; one of which less than
    a quarter is visible is ignored. No digit is in scenes of two sets. The same seed gives the same scenes; those of
    the test set are the same with any seed.
    """

    kind: Literal["mnist_scenes"] = "mnist_scenes"
    size: int = Field(64, ge=32, le=1024)
    """Side of a scene in pixels."""
    digits: int = Field(4, ge=1, le=100)
    """Most digits of a scene; each number from 0 to it is as likely."""
    smallest: int = Field(20, ge=8, le=1024)
    """Smallest side of a digit's square in pixels."""
    largest: int = Field(40, ge=8, le=1024)
    """Largest side of a digit's square in pixels."""
    clutter: int = Field(6, ge=0, le=100)
    """Pieces of other digits in the background of a scene."""
    scenes: int = Field(4000, ge=10, le=1_000_000)
    """Number of training scenes; `limit` takes the first of them."""
    validation: int = Field(500, ge=1, le=1_000_000)
    """Number of scenes of the validation set."""
    test: int = Field(500, ge=1, le=1_000_000)
    """Number of scenes of the test set."""
    source: Literal["mnist", "digits"] = "mnist"
    """Where the digits come from: mnist, which is downloaded, or digits (scikit-learn's, resized)."""
    offline: Literal["digits"] | None = None
    """Source to use if the files of MNIST are missing and cannot be downloaded."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.smallest > self.largest:
            message = f"{self.smallest} is more than largest, {self.largest}"
            raise Mistakes(Problem(message, "smallest", hint=f"allowed: 8 to {self.largest}"))
        if self.largest > self.size:
            message = f"{self.largest} is more than the side of a scene, {self.size}"
            raise Mistakes(Problem(message, "largest", hint=f"allowed: {self.smallest} to {self.size}"))
        return self

    @property
    def image(self) -> ImageShape:
        # Of the scenes that the defaults make of MNIST; other settings hardly change them.
        return ImageShape(3, self.size, self.size, mean=(0.21, 0.21, 0.21), std=(0.145, 0.145, 0.145))

    @property
    def targets(self) -> dict[str, Target]:
        digits = tuple("0123456789")
        classes = ("background", *digits)
        return {
            "mask": Target(len(classes), classes=classes, per_pixel=True),
            "boxes": Target(len(digits), classes=digits, boxes=True),
            "instances": Target(len(digits), classes=digits, instances=True),
        }

    def describe(self) -> Description:
        found = self._digits.describe()
        settings = self.model_dump(exclude={"batch_size", "augment", "limit", "offline"})
        digest = md5(f"{found.digest} {sorted(settings.items())}".encode()).hexdigest()[:8]
        sizes = {"train": min(self.scenes, self.limit or self.scenes), "validation": self.validation, "test": self.test}
        return Description(self.kind, digest, found.source, sizes)

    def prepare(self) -> tuple[ImageData, str]:
        found, message = self._digits.prepare()
        return (self if found == self._digits else self.model_copy(update={"source": "digits"})), message

    def location(self) -> str:
        return f"made of {self.source}: {self._digits.location()}"

    @property
    def is_available(self) -> bool:
        return self._digits.is_available

    def load_test(self) -> Images:
        return self._composed(*self._digits.read("test"), count=self.test, seed=(0, 2))

    def _both(self) -> tuple[Images, int]:
        digits, labels = self._digits.read("train")
        train, validation = held_out(labels.numpy(), _HELD_OUT, np.random.default_rng((self.seed, 0)))
        shown = self._composed(digits[train], labels[train], count=self.scenes, seed=(self.seed, 1))
        held = self._composed(digits[validation], labels[validation], count=self.validation, seed=(self.seed, 3))
        targets = {name: torch.cat([shown.targets[name], held.targets[name]]) for name in shown.targets}
        return Images(torch.cat([shown.images, held.images]), targets), self.scenes

    def _composed(self, digits: Tensor, labels: Tensor, count: int, seed: tuple[int, int]) -> Images:
        scenes = compose(
            digits,
            labels,
            count,
            np.random.default_rng(seed),
            side=self.size,
            most=self.digits,
            sides=(self.smallest, self.largest),
            clutter=self.clutter,
        )
        return Images(scenes.images, {"mask": scenes.masks, "boxes": scenes.boxes, "instances": scenes.instances})

    @property
    def _digits(self) -> MNIST | Digits:
        return MNIST(offline=self.offline) if self.source == "mnist" else Digits(size=_SIDE)
