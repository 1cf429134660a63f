"""Black rectangles in images."""

import math

import torch
from torch import Tensor

from tuner.data.augmentation.draws import chosen, drawn, uniform

_SHARES = (0.02, 1 / 3)
_ASPECT = math.log(3.3)


def erased(images: Tensor, share: float) -> Tensor:
    """Blacken a rectangle of a share of the images (N, C, H, W)."""
    return torch.where(chosen(images, share).view(-1, 1, 1, 1) & _rectangles(images), 0.0, images)


def _rectangles(images: Tensor) -> Tensor:
    """Draw a rectangle for each image: booleans (N, 1, H, W)."""
    height, width = images.shape[-2:]
    area = uniform(images, *_SHARES)
    aspect = uniform(images, -_ASPECT, _ASPECT)
    inside = torch.ones((), dtype=torch.bool, device=images.device)
    for side, sign, shape in ((height, -1, (1, 1, -1, 1)), (width, 1, (1, 1, 1, -1))):
        share = (area.sqrt() * (sign * aspect / 2).exp()).clamp(max=1)
        start = drawn(images) * (1 - share) * side
        place = torch.arange(side, device=images.device).view(shape) + 0.5
        first, last = start.view(-1, 1, 1, 1), (start + share * side).view(-1, 1, 1, 1)
        inside = inside & (place >= first) & (place < last)
    return inside
