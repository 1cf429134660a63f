"""Mosaics (Bochkovskiy et al., 2020): an image is composed of parts of four images of the batch."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from tuner.data.augmentation.draws import chosen, others, uniform
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
    order, orders, maps = torch.arange(len(images), device=images.device), [], []
    for quarter in quarters:
        orders.append(order)
        maps.append(_maps(images, quarter))
        order = following[order]
    values = dict(batch.targets)
    for name, each in located.items():
        for number, (order, quarter) in enumerate(zip(orders, quarters, strict=True)):
            moved = each.moved(batch.targets[name][order], maps[number], (height, width), quarter)
            values[name] = each.pasted(values[name], moved, rectangle(quarter, images)) if number else moved
    return Batch(_resampled([images[order] for order in orders], maps, x, y), values)


def _resampled(parts: list[Tensor], maps: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Fill the quarters around centres (N, 1) in pixels with four batches of images, (N, C, H, W), moved by their maps.

    A quarter needs a fourth of what is moved, so that the images are first stacked, from top to bottom, and each pixel
    is moved once.
    """
    height, width = parts[0].shape[-2:]
    columns, rows = (torch.arange(side, device=x.device) + 0.5 for side in (width, height))
    is_right, is_lower = columns >= x, rows >= y
    across, down = [], []
    for number, each in enumerate(maps):
        (a, _, x0), (_, d, y0) = (row.split_with_sizes([1, 1, 1], dim=1) for row in each.unbind(dim=1))
        u, v = (a * (columns * 2 / width - 1) + x0 + 1) / 2, (d * (rows * 2 / height - 1) + y0 + 1) / 2
        # Between the centres of outermost pixels nothing of the image above or below is seen.
        across.append(u.clamp(0.5 / width, 1 - 0.5 / width) * 2 - 1)
        down.append((number + v.clamp(0.5 / height, 1 - 0.5 / height)) / 2 - 1)
    upper, lower = (torch.where(is_right, across[k + 1], across[k]).unsqueeze(1) for k in (0, 2))
    left, right = (torch.where(is_lower, down[k + 2], down[k]).unsqueeze(2) for k in (0, 1))
    grid = (torch.where(is_lower.unsqueeze(2), lower, upper), torch.where(is_right.unsqueeze(1), right, left))
    return F.grid_sample(torch.cat(parts, dim=2), torch.stack(grid, dim=-1), align_corners=False)


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
