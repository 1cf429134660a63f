"""Operations that exchange each value of a channel for another one, which a table of 256 values says."""

import torch
from torch import Tensor

from tuner.data.augmentation.policies.distributions import Changes, Operation


def tables_of(changes: Changes) -> Tensor:
    """Return what is known of the table of each image without its pixels: numbers, to be rounded down, (N, 1, 256).

    That of a change of contrast lacks its share of the mean brightness.
    """
    levels = _levels(changes.magnitude)
    amount = changes.magnitude.view(-1, 1, 1)
    brighter = levels * (1 + amount)
    tables = levels
    for operation, of_operation in (
        (Operation.BRIGHTNESS, brighter),
        (Operation.CONTRAST, brighter),
        (Operation.POSTERIZE, _posterized(levels, changes.amount(Operation.POSTERIZE).view(-1, 1, 1))),
        (Operation.SOLARIZE, torch.where(levels < 255 * amount, levels, 255 - levels)),
    ):
        tables = torch.where(changes.are(operation).view(-1, 1, 1), of_operation, tables)
    return tables


def exchanged(pixels: Tensor, tables: Tensor, is_stretched: Tensor, is_equalized: Tensor) -> Tensor:
    """Exchange the values of images.

    Args:
        pixels: Numbers in [0, 255] as float32 (N, C, H, W), which count as rounded down.
        tables: What each value is exchanged for: numbers, which are rounded down and limited to bytes, (N, 1, 256).
        is_stretched: Whose values are stretched to the whole range instead, channel by channel, (N, 1, 1).
        is_equalized: Whose values are made equally frequent instead, (N, 1, 1).

    Returns:
        Whole numbers from 0 to 255 in the form of the images.
    """
    values = pixels.flatten(2).to(torch.int64)
    counts = values.new_zeros((*values.shape[:2], 256), dtype=torch.int32)
    counts.scatter_add_(2, values, torch.ones_like(values, dtype=torch.int32))
    levels = _levels(pixels)
    highest = torch.where(counts > 0, levels, 0).amax(-1, keepdim=True)
    tables = torch.where(is_stretched, _stretched(levels, counts, highest), tables)
    tables = torch.where(is_equalized, _equalized(levels, counts, highest), tables)
    return tables.clamp_(0, 255).floor_().gather(2, values).view_as(pixels)


def _levels(like: Tensor) -> Tensor:
    """All values that there are, float32 (256,)."""
    return torch.arange(256, dtype=torch.float32, device=like.device)


def _posterized(levels: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest bits of values."""
    dropped = 8 - bits.to(torch.int32)
    return (levels.to(torch.int32) >> dropped << dropped).to(levels.dtype)


def _stretched(levels: Tensor, counts: Tensor, highest: Tensor) -> Tensor:
    """Stretch the values of each channel to the whole range; a channel of one value stays as it is.

    Args:
        levels: All values, (256,).
        counts: How often each one occurs, int32 (N, C, 256).
        highest: The highest one that occurs, (N, C, 1).
    """
    lowest = torch.where(counts > 0, levels, 255).amin(-1, keepdim=True)
    is_flat = lowest == highest
    scale = torch.where(is_flat, 1, (highest - lowest) * (1 / 255))
    return (levels - torch.where(is_flat, 0, lowest)) / scale


def _equalized(levels: Tensor, counts: Tensor, highest: Tensor) -> Tensor:
    """Exchange each value for the share of values below it, as Pillow does, which leaves the highest out of account.

    The arguments are those of `_stretched`. A channel with too few pixels below its highest value stays as it is.
    """
    up_to = counts.cumsum(-1, dtype=torch.int32)
    step = (up_to[..., -1:] - counts.gather(-1, highest.to(torch.int64))).div(255, rounding_mode="floor")
    shares = (up_to - counts + step.div(2, rounding_mode="floor")).div(step.clamp(min=1), rounding_mode="floor")
    return torch.where(step > 0, shares.to(levels.dtype), levels)
