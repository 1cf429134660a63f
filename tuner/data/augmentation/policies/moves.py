"""Operations that move the pixels of an image over black: one resampling of all images."""

import math

import torch
from torch import Tensor

from tuner.data.augmentation.geometry import nearest_pixels
from tuner.data.augmentation.policies.distributions import Changes, Operation


def moved(pixels: Tensor, changes: Changes) -> Tensor:
    """Shear, translate and rotate images, float32 (N, C, H, W): each pixel gets the value of the nearest one."""
    height, width = pixels.shape[-2:]
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
    return nearest_pixels(pixels, torch.stack(rows, dim=1))
