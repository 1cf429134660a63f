"""Instances, integers (N, H, W), as images are augmented."""

from typing import ClassVar

import torch
from torch import Tensor

from tuner.data.augmentation.geometry import nearest
from tuner.data.augmentation.patches import Patch

_APART = 256
"""What is added to the numbers of the objects of another image, so that no two of an image have the same."""


class Instances:
    """Targets that say which object each pixel belongs to. A pixel from outside of an image belongs to none."""

    plural: ClassVar[str] = "instances"

    def flipped(self, values: Tensor, is_flipped: Tensor, width: int) -> Tensor:
        return torch.where(is_flipped.view(-1, 1, 1), values.flip(-1), values)

    def moved(self, values: Tensor, maps: Tensor, size: tuple[int, int]) -> Tensor:
        return nearest(values, maps, outside=0)

    def pasted(self, own: Tensor, other: Tensor, patch: Patch) -> Tensor:
        return torch.where(patch.pixels, _renumbered(other), own)

    def blended(self, own: Tensor, other: Tensor, share: float) -> tuple[Tensor, Tensor]:
        both = torch.where(own != 0, own, _renumbered(other))
        return both, both


def _renumbered(values: Tensor) -> Tensor:
    return values + _APART * values.sign()
