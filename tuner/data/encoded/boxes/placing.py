"""Where boxes are once their images have been resized: moved exactly as `tuner.data.decoding.fitted` moves pixels."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tuner.data.decoding import Form
from tuner.data.encoded.boxes.columns import Boxes
from tuner.data.encoded.listing import Array
from tuner.data.placing import maps
from tuner.interfaces import NO_BOX

_VISIBLE = 0.1
"""Share of its area that a box keeps in a cropped image; of an object of which less is seen, the class is a guess."""


@dataclass(frozen=True)
class Placed:
    """The boxes of resized images.

    Args:
        rows: x1, y1, x2, y2 in pixels of the form, class and 1 if it is ignored, float32 (B, 6), by image.
        starts: The index of each image's first box, and the number of all boxes, int64 (N + 1,).
    """

    rows: Array
    starts: Array

    @property
    def most(self) -> int:
        """The most boxes of one image, at least 1."""
        return max(1, int(np.diff(self.starts).max(initial=0)))

    def padded(self, images: Array) -> Tensor:
        """The boxes of images, by their indices (N,): float32 (N, `most`, 6), with rows of `NO_BOX` behind them."""
        counts = self.starts[images + 1] - self.starts[images]
        image = np.repeat(np.arange(len(images)), counts)
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        found = np.empty((len(images), self.most, 6), dtype=np.float32)
        found[:] = np.array(NO_BOX, dtype=np.float32)
        found[image, number] = self.rows[np.repeat(self.starts[images], counts) + number]
        return torch.from_numpy(found)


def placed(boxes: Boxes, sizes: Array, form: Form) -> Placed:
    """Move boxes as their images are resized; those of which a crop leaves less than a tenth are left out.

    Args:
        boxes: The boxes, by image in ascending order.
        sizes: Width and height of each image as it is shown, int64 (N, 2).
        form: The form of the images.
    """
    scale, offset = maps(sizes.astype(np.float64), form)
    sides = np.array([form.width, form.height], dtype=np.float64)
    limits = sizes[boxes.images].astype(np.float64)
    corners = boxes.corners.reshape(-1, 2, 2)  # first and second corner; x and y
    corners = np.clip(corners, 0, limits[:, None])
    moved = corners * scale[boxes.images][:, None] + offset[boxes.images][:, None]
    seen = np.clip(moved, 0, sides)
    rows = np.empty((len(boxes), 6), dtype=np.float32)
    rows[:, :4] = seen.reshape(-1, 4)
    rows[:, 4] = boxes.classes
    rows[:, 5] = boxes.ignored
    is_kept = _areas(seen) >= _VISIBLE * _areas(moved)
    is_kept &= (rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])  # in single precision, too
    counts = np.bincount(boxes.images[is_kept], minlength=len(sizes))
    return Placed(rows[is_kept], np.concatenate([[0], np.cumsum(counts)]))


def _areas(corners: Array) -> Array:
    """The areas of boxes (B, 2, 2)."""
    areas: Array = (corners[:, 1] - corners[:, 0]).prod(axis=1)
    return areas
