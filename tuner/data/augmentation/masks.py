"""Masks, uint8 (N, H, W), as images are augmented."""

from typing import ClassVar

import torch
from torch import Tensor

from tuner.data.augmentation.geometry import nearest
from tuner.data.augmentation.patches import Bounds, EachBounds, Patch
from tuner.interfaces import IGNORED

_BACKGROUND = 0
"""The class of what is no object, as in Pascal VOC."""


class Masks:
    """Targets that have a class for each pixel. Of a pixel from outside of an image, the class is unknown."""

    plural: ClassVar[str] = "masks"
    has_objects: ClassVar[bool] = False

    def flipped(self, values: Tensor, is_flipped: Tensor, width: int) -> Tensor:
        return torch.where(is_flipped.view(-1, 1, 1), values.flip(-1), values)

    def moved(self, values: Tensor, maps: Tensor, size: tuple[int, int], bounds: Bounds | None = None) -> Tensor:
        return nearest(values, maps, outside=IGNORED)

    def pasted(self, own: Tensor, other: Tensor, patch: Patch) -> Tensor:
        return torch.where(patch.pixels, other, own)

    def blended(self, own: Tensor, other: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        return own, other

    def drawn_object(self, values: Tensor) -> EachBounds:
        raise NotImplementedError("a mask does not tell objects of a class apart")

    def shapes(self, values: Tensor) -> Tensor | None:
        return (values != _BACKGROUND) & (values != IGNORED)
