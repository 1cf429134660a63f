"""The prediction of objects with masks."""

from typing import Any

import torch
from torch import Tensor

from tuner.interfaces.instances import mask_sides
from tuner.interfaces.placement import Placement
from tuner.tasks.predictions.base import RLE
from tuner.tasks.predictions.boxes import BoxesPrediction
from tuner.tasks.predictions.coding import encoded


class InstancesPrediction(BoxesPrediction):
    """The objects of an image, each with a mask."""

    columns = (*BoxesPrediction.columns, "mask")

    @classmethod
    def _mask_of(cls, values: Tensor, placement: Placement) -> RLE | None:
        probabilities = placement.values(values.view(1, *mask_sides(*placement.sides)))[0]
        shown = torch.zeros(probabilities.shape, dtype=torch.bool)
        shown[placement.covered] = probabilities[placement.covered] >= 0.5
        return encoded(shown.numpy())

    def rows(self) -> list[dict[str, Any]]:
        masks = [each.mask["counts"] if each.mask else "" for each in self.boxes]
        return [row | {"mask": mask} for row, mask in zip(super().rows(), masks, strict=True)]
