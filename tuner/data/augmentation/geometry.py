"""Affine maps: where the pixels of changed images come from.

A map is from places in the result to places in the image, whose left and upper edges are -1, right and lower edges 1.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from tuner.data.augmentation.draws import chosen, uniform

_ASPECT = math.log(4 / 3)  # a crop's aspect ratio is from 3/4 to 4/3 of the image's
_EDGE = 1 + 1e-5


def drawn_maps(images: Tensor, *, flip: bool, crop: float, zoom: float, shift: int, rotation: float) -> Tensor:
    """Draw a map for each image, (N, 2, 3). The arguments are the fields of `Augment`."""
    height, width = images.shape[-2:]
    angle = uniform(images, -rotation, rotation) * (math.pi / 180)
    area = uniform(images, crop, 1.0)
    aspect = uniform(images, -_ASPECT, _ASPECT) * (crop < 1)
    # Where the whole width or height is less than the drawn aspect ratio asks for, the share is kept instead.
    across = (area.sqrt() * (aspect / 2).exp()).clamp(max=1).maximum(area)
    down = area / across
    flipped = 1 - 2 * chosen(images, 0.5 * flip).float()
    if zoom > 1:
        factor = uniform(images, -math.log(zoom), math.log(zoom)).exp()
        across, down = across / factor, down / factor
    cos, sin = angle.cos(), angle.sin()
    # A part of the image that fills the result, or the whole image somewhere in it.
    x = uniform(images, -1, 1) * (1 - across)
    y = uniform(images, -1, 1) * (1 - down)
    if shift:
        x = x + (2 / width) * uniform(images, -shift - 0.5, shift + 0.5).round()
        y = y + (2 / height) * uniform(images, -shift - 0.5, shift + 0.5).round()
    rows = (
        torch.stack([across * cos * flipped, -down * sin * (height / width), x], dim=1),
        torch.stack([across * sin * (width / height) * flipped, down * cos, y], dim=1),
    )
    return torch.stack(rows, dim=1)


def resampled(images: Tensor, maps: Tensor) -> Tensor:
    """Move images, float32 (N, C, H, W), over black."""
    grid, is_inside = _grid(maps, images)
    found = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    # Black begins at the edge of the image: grid_sample's own zeros would darken its outermost pixels, too.
    return found * is_inside.unsqueeze(1)


def nearest(values: Tensor, maps: Tensor, outside: int) -> Tensor:
    """Move whole numbers (N, H, W) as `resampled` moves images: each pixel gets the nearest one.

    Args:
        values: The numbers, which float32 holds exactly.
        maps: The maps (N, 2, 3).
        outside: The number of a pixel that comes from outside of the image.
    """
    planes = values.float().unsqueeze(1)
    grid, is_inside = _grid(maps, planes)
    found = F.grid_sample(planes, grid, mode="nearest", padding_mode="border", align_corners=False).squeeze(1)
    return torch.where(is_inside, found, outside).to(values.dtype)


def nearest_pixels(images: Tensor, maps: Tensor) -> Tensor:
    """Move images, float32 (N, C, H, W), over black: each pixel gets the value of the nearest one."""
    grid = _places(maps, images).movedim(1, -1)
    return F.grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def _grid(maps: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Find where pixels come from (N, H, W, 2), and which ones from the image (N, H, W)."""
    places = _places(maps, images)
    return places.movedim(1, -1), (places.abs() <= _EDGE).all(dim=1)


def _places(maps: Tensor, images: Tensor) -> Tensor:
    """Find where pixels come from, both coordinates (N, 2, H, W)."""
    # affine_grid multiplies matrices, which takes as long on a CPU as all the rest of a resampling.
    height, width = images.shape[-2:]
    u, v = (torch.arange(1 - side, side, 2, device=images.device) / side for side in (width, height))
    of_column, of_row, origin = maps.view(-1, 2, 3, 1, 1).unbind(dim=2)
    return of_column * u + (of_row * v.unsqueeze(1) + origin)


def _entries(maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The two rows of maps, of three entries (N, 1, 1)."""
    return (row.unbind(dim=1) for row in maps.view(-1, 2, 3, 1, 1).unbind(dim=1))


def moved_bounds(edges: Tensor, maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Find the bounds of boxes after their images moved, also outside of the result.

    Args:
        edges: The left, upper, right and lower edges of the boxes, float32 (N, M, 4) in pixels.
        maps: The maps of their images (N, 2, 3), which are inverted.
        size: Height and width of the images.
    """
    height, width = size
    left, top, right, bottom = edges.unbind(dim=-1)
    (a, b, x0), (c, d, y0) = _entries(maps)
    x = torch.stack([left, right, left, right], dim=-1) * (2 / width) - 1 - x0
    y = torch.stack([top, top, bottom, bottom], dim=-1) * (2 / height) - 1 - y0
    determinant = a * d - b * c
    across = ((d * x - b * y) / determinant + 1) * (width / 2)
    down = ((a * y - c * x) / determinant + 1) * (height / 2)
    return torch.stack([across.amin(-1), down.amin(-1), across.amax(-1), down.amax(-1)], dim=-1)
