"""Images at random places on an empty canvas: something to find as well as to name."""

import numpy as np
import torch
from torch import Tensor


def place(images: Tensor, side: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Put each image at a random place on an empty square.

    Args:
        images: uint8 (N, H, W).
        side: Side of the square in pixels, at least H and W.
        rng: Where the places come from.

    Returns:
        The canvases, uint8 (N, side, side), and the positions, float32 (N, 2): the image's centre (x, y) as its
        distance from the canvas's centre, in pixels.
    """
    count, height, width = images.shape
    tops = rng.integers(0, side - height, size=count, endpoint=True)
    lefts = rng.integers(0, side - width, size=count, endpoint=True)
    canvases = torch.zeros((count, side, side), dtype=torch.uint8)
    # One copy a place and not one an image: there are few places and many images.
    for top, left in np.unique(np.stack([tops, lefts], axis=1), axis=0):
        here = torch.from_numpy(np.flatnonzero((tops == top) & (lefts == left)))
        canvases[here, top : top + height, left : left + width] = images[here]
    x = lefts + (width - side) / 2
    y = tops + (height - side) / 2
    return canvases, torch.from_numpy(np.stack([x, y], axis=1).astype(np.float32))
