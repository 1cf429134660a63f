"""One operation on each image of a batch, in steps that all images pass through."""

from typing import NamedTuple

from torch import Tensor

from tuner.data.augmentation.geometry import nearest_pixels
from tuner.data.augmentation.policies.blends import blended, grey
from tuner.data.augmentation.policies.distributions import Changes, Operation
from tuner.data.augmentation.policies.moves import maps_of
from tuner.data.augmentation.policies.tables import exchanged, tables_of


class Round(NamedTuple):
    """What the steps need to know; those that have no part in the operation of an image leave it as it is."""

    maps: Tensor
    """Where pixels come from, (N, 2, 3)."""
    saturation: Tensor
    """By which share the saturation changes, (N, 1, 1, 1)."""
    sharpness: Tensor
    """By which share the sharpness changes, (N, 1, 1, 1)."""
    contrast: Tensor
    """By which share the contrast changes, (N, 1, 1)."""
    tables: Tensor
    """What values are exchanged for, whatever the other pixels are, (N, 1, 256)."""
    is_stretched: Tensor
    """Which images have their contrast set by their lowest and highest values, (N, 1, 1)."""
    is_equalized: Tensor
    """Which ones have it set by how often each value occurs, (N, 1, 1)."""

    @classmethod
    def of(cls, changes: Changes, height: int, width: int) -> "Round":
        """The steps of what is done to images of a size."""
        return cls(
            maps_of(changes, height, width),
            changes.amount(Operation.COLOR).view(-1, 1, 1, 1),
            changes.amount(Operation.SHARPNESS).view(-1, 1, 1, 1),
            changes.amount(Operation.CONTRAST).view(-1, 1, 1),
            tables_of(changes),
            changes.are(Operation.AUTOCONTRAST).view(-1, 1, 1),
            changes.are(Operation.EQUALIZE).view(-1, 1, 1),
        )

    def part(self, rows: slice) -> "Round":
        """The steps for some of the images."""
        return Round(*(each[rows] for each in self))

    def computed(self, pixels: Tensor) -> Tensor:
        """Change images, whole numbers from 0 to 255 as float32 (N, C, H, W)."""
        pixels = nearest_pixels(pixels, self.maps)
        greys = grey(pixels)
        means = greys.mean(dim=(1, 2, 3)).view(-1, 1, 1)
        pixels = blended(pixels, greys, self.saturation, self.sharpness)
        tables = self.tables.addcmul(means, self.contrast, value=-1)
        return exchanged(pixels, tables, self.is_stretched, self.is_equalized)
