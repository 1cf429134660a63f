"""Operations that move the pixels of an image over black."""

import math

import torch
from torch import Tensor

from tuner.data.augmentation.policies.distributions import Changes, Operation


def maps_of(changes: Changes, height: int, width: int) -> Tensor:
    """Return the map by which each image is sheared, translated or rotated, (N, 2, 3), of images of a size."""
    shear_x, shear_y = changes.amount(Operation.SHEAR_X), changes.amount(Operation.SHEAR_Y)
    angle = changes.amount(Operation.ROTATE) * (math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    # The upper edge stays where it is when rows are sheared, and the left one when columns are; the centre is turned
    # about. Places are in halves of a side, so that a slope is also one between sides of different length.
    x = shear_x * (height / width) - changes.amount(Operation.TRANSLATE_X).trunc() * (2 / width)
    y = shear_y * (width / height) - changes.amount(Operation.TRANSLATE_Y).trunc() * (2 / height)
    rows = (
        torch.stack([cos, (shear_x - sin) * (height / width), x], dim=1),
        torch.stack([(shear_y + sin) * (width / height), cos, y], dim=1),
    )
    return torch.stack(rows, dim=1)
