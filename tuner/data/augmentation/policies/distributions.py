"""What the policies draw for each image: an operation, and how much of it."""

from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Literal

import torch
from torch import Tensor

from tuner.data.augmentation.draws import chosen, drawn

Policy = Literal["trivial", "rand"]
"""TrivialAugmentWide (Mueller and Hutter, 2021) or RandAugment (Cubuk et al., 2019), as torchvision sets them."""

BINS = 31
"""How many magnitudes there are, at even distances from none to the largest."""
_RAND_BIN = 9
"""Which of them RandAugment takes."""


class Operation(IntEnum):
    """What is done to an image; the magnitude of each."""

    IDENTITY = 0
    SHEAR_X = auto()
    """Columns by which a row is moved further than the one above."""
    SHEAR_Y = auto()
    """Rows by which a column is moved further than the one to its left."""
    TRANSLATE_X = auto()
    """Columns, of which the whole ones count."""
    TRANSLATE_Y = auto()
    """Rows, of which the whole ones count."""
    ROTATE = auto()
    """Degrees."""
    BRIGHTNESS = auto()
    """Relative change of the distance to black."""
    COLOR = auto()
    """Relative change of the distance to the pixel's grey."""
    CONTRAST = auto()
    """Relative change of the distance to the mean grey of the image."""
    SHARPNESS = auto()
    """Relative change of the distance to the blurred image."""
    POSTERIZE = auto()
    """Bits of a value that are kept."""
    SOLARIZE = auto()
    """Share of the largest value from which on values are inverted."""
    AUTOCONTRAST = auto()
    EQUALIZE = auto()


@dataclass(frozen=True)
class Changes:
    """What is done to the images of a batch.

    Args:
        operation: An `Operation` for each image, int64 (N,).
        magnitude: How much of it, float32 (N,).
    """

    operation: Tensor
    magnitude: Tensor

    def amount(self, operation: Operation) -> Tensor:
        """How much of this is done to each image, 0 if another operation is its own: float32 (N,)."""
        return self.are(operation) * self.magnitude

    def are(self, operation: Operation) -> Tensor:
        """Which images this is done to, booleans (N,)."""
        return self.operation == operation.value  # torch.compile knows no members of enumerations


def drawn_changes(images: Tensor, policy: Policy) -> list[Changes]:
    """Draw what is done to each image, one after the other."""
    height, width = images.shape[-2:]
    table = magnitudes(policy, height, width, images.device)
    if policy == "trivial":
        return [_drawn(images, table, _whole(images, BINS))]
    return [_drawn(images, table, _RAND_BIN) for _ in range(2)]


def _drawn(images: Tensor, table: Tensor, position: Tensor | int) -> Changes:
    operation = _whole(images, len(Operation))
    magnitude = table.flatten().index_select(0, operation * BINS + position)
    # The operations from there on have no sign. The first one has no magnitude, so that its sign does not matter.
    is_negative = chosen(images, 0.5) & (operation < Operation.POSTERIZE.value)
    return Changes(operation, torch.where(is_negative, -magnitude, magnitude))


def _whole(images: Tensor, count: int) -> Tensor:
    """Draw a whole number below a count for each image."""
    return (drawn(images) * count).to(torch.int64)


def magnitudes(policy: Policy, height: int, width: int, device: torch.device) -> Tensor:
    """Return the magnitudes of each operation without their signs, float32 (operations, BINS)."""

    def up_to(most: float) -> Tensor:
        return torch.linspace(0, most, BINS, device=device)

    if policy == "trivial":
        shear, across, down, degrees, change, bits = 0.99, 32.0, 32.0, 135.0, 0.99, 6
    else:
        shear, across, down, degrees, change, bits = 0.3, 150 / 331 * width, 150 / 331 * height, 30.0, 0.9, 4
    none, sheared, changed = up_to(0), up_to(shear), up_to(change)
    rows = {
        Operation.SHEAR_X: sheared,
        Operation.SHEAR_Y: sheared,
        Operation.TRANSLATE_X: up_to(across),
        Operation.TRANSLATE_Y: up_to(down),
        Operation.ROTATE: up_to(degrees),
        Operation.BRIGHTNESS: changed,
        Operation.COLOR: changed,
        Operation.CONTRAST: changed,
        Operation.SHARPNESS: changed,
        Operation.POSTERIZE: (8 - up_to(bits)).round(),
        Operation.SOLARIZE: torch.linspace(1, 0, BINS, device=device),
    }
    return torch.stack([rows.get(each, none) for each in Operation])
