"""Patches: pixels of images that others of the batch get."""

from dataclasses import dataclass

import torch
from torch import Tensor

Bounds = tuple[float | Tensor, float | Tensor, float | Tensor, float | Tensor]
"""Left, upper, right and lower edge of a part of the images in pixels: of all images, or of each one, (N, 1)."""

EachBounds = tuple[Tensor, Tensor, Tensor, Tensor]
"""The same of each image, (N, 1)."""


@dataclass(frozen=True)
class Patch:
    """Pixels that are pasted over those of other images, at the same place.

    Args:
        bounds: The rectangle in which they lie.
        pixels: Which ones they are, booleans (N, H, W), or (1, H, W) if they are the same in all images.
        is_whole: Whether they are all pixels of the rectangle.
    """

    bounds: Bounds
    pixels: Tensor
    is_whole: bool = True

    def counts(self, edges: Tensor) -> Tensor:
        """Count its pixels within rectangles of each image, float32 (N, M, 4) in pixels: int64 (N, M)."""
        count, height, width = self.pixels.shape
        sums = torch.zeros((count, height + 1, width + 1), dtype=torch.int64, device=edges.device)
        sums[:, 1:, 1:] = self.pixels.long().cumsum(dim=1).cumsum(dim=2)
        sums = sums.expand(len(edges), -1, -1).flatten(1)
        left, top, right, bottom = edges.round().long().unbind(dim=-1)
        left, right = left.clamp(0, width), right.clamp(0, width)
        above, below = (side.clamp(0, height) * (width + 1) for side in (top, bottom))
        a, b, c, d = (sums.gather(1, place) for place in (below + right, below + left, above + right, above + left))
        return a - b - c + d


def rectangle(bounds: Bounds, images: Tensor) -> Patch:
    """All pixels of images (N, C, H, W) within bounds."""
    height, width = images.shape[-2:]
    left, top, right, bottom = bounds
    x, y = (torch.arange(side, device=images.device) + 0.5 for side in (width, height))
    across, down = (x >= left) & (x < right), (y >= top) & (y < bottom)
    return Patch(bounds, across.view(-1, 1, width) & down.view(-1, height, 1))
