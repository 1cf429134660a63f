"""Instances, integers (N, H, W), as images are augmented."""

from typing import ClassVar

import torch
from torch import Tensor

from tuner.data.augmentation.boxes import Boxes
from tuner.data.augmentation.geometry import nearest
from tuner.data.augmentation.patches import Bounds, EachBounds, Patch
from tuner.interfaces.instances import NUMBERS, boxes_of, numbers_of


class Instances:
    """Targets that say which object each pixel belongs to. A pixel from outside of an image belongs to none."""

    plural: ClassVar[str] = "instances"
    has_objects: ClassVar[bool] = True

    def flipped(self, values: Tensor, is_flipped: Tensor, width: int) -> Tensor:
        return torch.where(is_flipped.view(-1, 1, 1), values.flip(-1), values)

    def moved(self, values: Tensor, maps: Tensor, size: tuple[int, int], bounds: Bounds | None = None) -> Tensor:
        return nearest(values, maps, outside=0)

    def pasted(self, own: Tensor, other: Tensor, patch: Patch) -> Tensor:
        return torch.where(patch.pixels, _renumbered(other, own), own)

    def blended(self, own: Tensor, other: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.where(own != 0, own, _renumbered(other, own))
        return both, both

    def drawn_object(self, values: Tensor) -> EachBounds:
        return Boxes().drawn_object(boxes_of(values, NUMBERS - 1)[0])

    def shapes(self, values: Tensor) -> Tensor | None:
        return values != 0


def _renumbered(values: Tensor, others: Tensor) -> Tensor:
    """Give objects numbers that those of other targets do not have; objects for which none is left are left out."""
    used = numbers_of(others).amax(dim=(1, 2), keepdim=True)
    return torch.where(numbers_of(values) + used < NUMBERS, values + used * values.sign(), 0)
