"""Mosaics (Bochkovskiy et al., 2020): an image is composed of parts of four images of the batch."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tuner.data.augmentation.draws import chosen, others, uniform
from tuner.data.augmentation.geometry import resampled
from tuner.data.augmentation.located import Located
from tuner.data.augmentation.patches import EachBounds, rectangle
from tuner.interfaces import Batch

_NEAREST = 0.25
"""Smallest distance of the centre of a mosaic from the edges, as a share of the side."""


def composed(batch: Batch, share: float, located: Mapping[str, Located]) -> Batch:
    """Compose a share of the images of themselves and three others, around a random centre.

    Each of the four fills its quarter with a part of it, reduced by a factor of its own.
    """
    images = batch.inputs
    height, width = images.shape[-2:]
    x, y = ((_drawn(images, _NEAREST, 1 - _NEAREST) * side).round() for side in (width, height))
    is_chosen = chosen(images, share).unsqueeze(1)
    # The first quarter of an image that is not chosen is all of it.
    x, y = torch.where(is_chosen, x, width), torch.where(is_chosen, y, height)
    zero, right, bottom = torch.zeros_like(x), torch.full_like(x, width), torch.full_like(y, height)
    quarters = ((zero, zero, x, y), (x, zero, right, y), (zero, y, x, bottom), (x, y, right, bottom))
    following = others(images)
    order = torch.arange(len(images), device=images.device)
    result, values = images, dict(batch.targets)
    for number, quarter in enumerate(quarters):
        maps = _maps(images, quarter)
        patch = rectangle(quarter, images)
        result = torch.where(patch.pixels.unsqueeze(1), resampled(images[order], maps), result)
        for name, each in located.items():
            moved = each.moved(batch.targets[name][order], maps, (height, width), quarter)
            values[name] = moved if number == 0 else each.pasted(values[name], moved, patch)
        order = following[order]
    return Batch(result, values)


def _maps(images: Tensor, quarter: EachBounds) -> Tensor:
    """Draw maps (N, 2, 3) that fill a part of the result, whose edges are (N, 1), with a part of the image."""
    left, top, right, bottom = quarter
    height, width = images.shape[-2:]
    least = torch.maximum((right - left) / width, (bottom - top) / height).clamp(min=_NEAREST)  # empty ones, too
    factor = least + _drawn(images, 0, 1) * (1 - least)
    x, y = (_offset(images, factor, *edges) for edges in ((left, right, width), (top, bottom, height)))
    zero = torch.zeros_like(factor)
    return torch.stack([torch.cat([1 / factor, zero, x], dim=1), torch.cat([zero, 1 / factor, y], dim=1)], dim=1)


def _offset(images: Tensor, factor: Tensor, start: Tensor, end: Tensor, side: int) -> Tensor:
    """Draw an offset with which what comes to lie between two edges is in the image."""
    first, last = (2 * edge / side - 1 for edge in (start, end))
    least, most = -1 - first / factor, 1 - last / factor
    return least + _drawn(images, 0, 1) * (most - least)


def _drawn(images: Tensor, low: float, high: float) -> Tensor:
    return uniform(images, low, high).unsqueeze(1)
