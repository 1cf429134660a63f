"""Where a place in the input of a model is in the image that was resized to it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Placement:
    """How an image was brought to the size of a model's input.

    Args:
        width: Width of the image as it is shown, in pixels.
        height: Its height.
        scale: Pixels of the input for each pixel of the image, across and down.
        offset: Where the image's upper left corner is, in pixels of the input, across and down; negative where the
            image was cropped.
        sides: Height and width of the input, in pixels.
    """

    width: int
    height: int
    scale: tuple[float, float]
    offset: tuple[float, float]
    sides: tuple[int, int]

    def boxes(self, boxes: Tensor) -> Tensor:
        """Move boxes to the image.

        Args:
            boxes: Left, top, right and bottom edge in pixels of the input, (K, 4).

        Returns:
            The edges in pixels of the image, float64 (K, 4), within it.
        """
        scale, offset = (torch.tensor([*each, *each], dtype=torch.float64) for each in (self.scale, self.offset))
        limits = torch.tensor([self.width, self.height] * 2, dtype=torch.float64)
        return ((boxes.double() - offset) / scale).clamp(min=0).minimum(limits)

    def values(self, values: Tensor) -> Tensor:
        """Interpolate values of the input's pixels at the pixels of the image.

        Args:
            values: float (C, h, w): for each pixel of the input, or for fewer that cover the same area.

        Returns:
            float (C, height, width). Pixels that the crop cut off have the values at its edge: see `covered`.
        """
        for dimension in (-2, -1):
            values = _interpolated(values, dimension, self._centres(dimension) * values.shape[dimension] - 0.5)
        return values

    @property
    def covered(self) -> tuple[slice, slice]:
        """The rows and the columns of the image that the input shows: all of them unless it was cropped."""
        rows, columns = (
            ((centres >= 0) & (centres <= 1)).nonzero().flatten().tolist() for centres in map(self._centres, (-2, -1))
        )
        return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)

    def _centres(self, dimension: int) -> Tensor:
        """The centres of the image's rows (-2) or columns (-1), as shares of the input's side, float64."""
        at = 0 if dimension == -1 else 1
        centres = torch.arange((self.width, self.height)[at], dtype=torch.float64) + 0.5
        return (centres * self.scale[at] + self.offset[at]) / self.sides[1 - at]


def _interpolated(values: Tensor, dimension: int, places: Tensor) -> Tensor:
    """Interpolate values between their neighbours in a dimension, at places counted in these, float64 (P,)."""
    last = values.shape[dimension] - 1
    places = places.clamp(0, last)
    below = places.floor().long()
    shape = [1] * values.ndim
    shape[dimension] = -1
    share = (places - below).to(values.dtype).view(shape)
    above = (below + 1).clamp(max=last)
    return torch.lerp(values.index_select(dimension, below), values.index_select(dimension, above), share)
