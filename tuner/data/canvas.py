"""Placement of images at random positions on an empty canvas, so that a model can learn to locate them."""

import numpy as np
import torch
from torch import Tensor


def place(images: Tensor, side: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Place each image at a random position on an empty square.

    Args:
        images: uint8 (N, H, W).
        side: Side of the square in pixels, at least H and W.
        rng: Generator of the positions.

    Returns:
        The canvases, uint8 (N, side, side), and the positions, float32 (N, 2): the centre (x, y) of each image
        relative to the centre of the canvas, in pixels.
    """
    count, height, width = images.shape
    tops = rng.integers(0, side - height, size=count, endpoint=True)
    lefts = rng.integers(0, side - width, size=count, endpoint=True)
    canvases = torch.zeros((count, side, side), dtype=torch.uint8)
    # One copy per position instead of one per image: there are fewer positions than images.
    for top, left in np.unique(np.stack([tops, lefts], axis=1), axis=0):
        index = torch.from_numpy(np.flatnonzero((tops == top) & (lefts == left)))
        canvases[index, top : top + height, left : left + width] = images[index]
    x = lefts + (width - side) / 2
    y = tops + (height - side) / 2
    return canvases, torch.from_numpy(np.stack([x, y], axis=1).astype(np.float32))
