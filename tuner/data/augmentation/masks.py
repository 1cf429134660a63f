"""Masks, uint8 (N, H, W), as images are augmented."""

from typing import ClassVar

import torch
from torch import Tensor

from tuner.data.augmentation.geometry import nearest
from tuner.data.augmentation.patches import Patch
from tuner.interfaces import IGNORED


class Masks:
    """Targets that have a class for each pixel. Of a pixel from outside of an image, the class is unknown."""

    plural: ClassVar[str] = "masks"

    def flipped(self, values: Tensor, is_flipped: Tensor, width: int) -> Tensor:
        return torch.where(is_flipped.view(-1, 1, 1), values.flip(-1), values)

    def moved(self, values: Tensor, maps: Tensor, size: tuple[int, int]) -> Tensor:
        return nearest(values, maps, outside=IGNORED)

    def pasted(self, own: Tensor, other: Tensor, patch: Patch) -> Tensor:
        return torch.where(patch.pixels, other, own)

    def blended(self, own: Tensor, other: Tensor, share: float) -> tuple[Tensor, Tensor]:
        return own, other
