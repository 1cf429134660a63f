"""Operations that exchange each value of a channel for another one, which a table of 256 values says."""

import torch
from torch import Tensor

from tuner.data.augmentation.policies.distributions import Changes, Operation


def exchanged(pixels: Tensor, means: Tensor, changes: Changes) -> Tensor:
    """Change brightness, contrast and single values of images.

    Args:
        pixels: Numbers in [0, 255] as float32 (N, C, H, W), which count as rounded down.
        means: The mean brightness of each image before, (N,).
        changes: The operations.

    Returns:
        Whole numbers from 0 to 255 in the same form.
    """
    values = pixels.flatten(2).to(torch.int64)
    counts = values.new_zeros((*values.shape[:2], 256), dtype=torch.int32)
    counts.scatter_add_(2, values, counts.new_ones(1).expand_as(values))
    levels = torch.arange(256, dtype=torch.float32, device=pixels.device)
    amount = changes.magnitude.view(-1, 1, 1)
    brighter = levels * (1 + amount)
    tables = {
        Operation.BRIGHTNESS: brighter,
        Operation.CONTRAST: torch.addcmul(brighter, means.view(-1, 1, 1), amount, value=-1),
        Operation.POSTERIZE: _posterized(levels, changes.amount(Operation.POSTERIZE).view(-1, 1, 1)),
        Operation.SOLARIZE: torch.where(levels < 255 * amount, levels, 255 - levels),
        Operation.AUTOCONTRAST: _stretched(levels, counts),
        Operation.EQUALIZE: _equalized(levels, counts),
    }
    table = levels
    for operation, of_operation in tables.items():
        table = torch.where(changes.are(operation).view(-1, 1, 1), of_operation, table)
    return table.clamp(0, 255).floor_().gather(2, values).view_as(pixels)


def _posterized(levels: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest bits of values."""
    dropped = 8 - bits.to(torch.int32)
    return (levels.to(torch.int32) >> dropped << dropped).to(levels.dtype)


def _stretched(levels: Tensor, counts: Tensor) -> Tensor:
    """Stretch the values of each channel to the whole range; a channel of one value stays as it is.

    Args:
        levels: All values (256,).
        counts: How often each one occurs, int32 (N, C, 256).
    """
    lowest, highest = _lowest(levels, counts), _highest(levels, counts)
    is_flat = lowest == highest
    scale = torch.where(is_flat, 1, (highest - lowest) * (1 / 255))
    return (levels - torch.where(is_flat, 0, lowest)) / scale


def _equalized(levels: Tensor, counts: Tensor) -> Tensor:
    """Exchange each value for the share of values below it, as Pillow does, which leaves the highest out of account.

    The arguments are those of `_stretched`. A channel with too few pixels below its highest value stays as it is.
    """
    up_to = counts.cumsum(-1, dtype=torch.int32)
    of_highest = counts.gather(-1, _highest(levels, counts).to(torch.int64))
    step = (up_to[..., -1:] - of_highest).div(255, rounding_mode="floor")
    shares = (up_to - counts + step.div(2, rounding_mode="floor")).div(step.clamp(min=1), rounding_mode="floor")
    return torch.where(step > 0, shares.to(levels.dtype), levels)


def _lowest(levels: Tensor, counts: Tensor) -> Tensor:
    return torch.where(counts > 0, levels, 255).amin(-1, keepdim=True)


def _highest(levels: Tensor, counts: Tensor) -> Tensor:
    return torch.where(counts > 0, levels, 0).amax(-1, keepdim=True)
