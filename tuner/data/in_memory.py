"""The base class of datasets whose labelled images are read whole into memory."""

from abc import abstractmethod
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor

from tuner.data.canvas import place
from tuner.data.images import Images, Split
from tuner.data.labelled import LabelledImages
from tuner.data.splits import stratified
from tuner.errors import Mistakes, Problem
from tuner.interfaces import Target


class InMemoryImages(LabelledImages):
    """Labelled images in a training and a test set. The validation set is a seeded, stratified part of the first."""

    canvas: int | None = Field(None, ge=1, le=1024)
    """Side in pixels of an empty square on which each image is placed at random; adds the target ``position``."""

    _classes: tuple[str, ...] = tuple("0123456789")

    @model_validator(mode="after")
    def _positions_stay_true(self) -> Self:
        if self.canvas is not None and (self.augment.moves or self.augment.mixes):
            hint = "color and erase are possible, or leave the canvas out"
            raise Mistakes(Problem("moves or mixes images whose position is a target", key="augment", hint=hint))
        return self

    @property
    def targets(self) -> dict[str, Target]:
        """The targets by name: ``label`` and, if there is a canvas, ``position``."""
        targets = {"label": Target(len(self._classes), classes=self._classes)}
        return targets if self.canvas is None else targets | {"position": Target(2, unit="pixels")}

    @property
    def preprocessing(self) -> list[dict[str, Any]]:
        return [] if self.canvas is None else [{"kind": "canvas", "side": self.canvas}]

    @property
    @abstractmethod
    def validation_size(self) -> int:
        """Number of images in the validation set."""

    def _held_out_of(self, count: int, validation: int) -> int:
        """Number of images in the validation set of `count` images; `validation` of them if there are no folds."""
        return validation if self.folds is None else self.folds.size(count)

    @abstractmethod
    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        """Read the original training or test set.

        Returns:
            Images, uint8 (N, H, W) or (N, C, H, W), and labels, int64 (N,).
        """

    def load_test(self) -> Images:
        return self._placed(*self.read("test"), seed=(self.seed, 2))

    def _both(self) -> tuple[Images, int]:
        images, labels = self.read("train")
        order, train = stratified(labels, self.validation_size, self.seed, self.folds)
        return self._placed(images[order], labels[order], seed=(self.seed, 1)), train

    def _placed(self, images: Tensor, labels: Tensor, seed: tuple[int, int]) -> Images:
        if self.canvas is None:
            return Images(images if images.ndim == 4 else images.unsqueeze(1), {"label": labels})
        placed, positions = place(images, self.canvas, np.random.default_rng(seed))
        return Images(placed.unsqueeze(1), {"label": labels, "position": positions})
