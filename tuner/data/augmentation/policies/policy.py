"""The change of a batch by a policy, operation by operation."""

import torch
from torch import Tensor

from tuner.data.augmentation.policies.blends import blended, grey
from tuner.data.augmentation.policies.distributions import Changes, Policy, drawn_changes
from tuner.data.augmentation.policies.moves import moved
from tuner.data.augmentation.policies.tables import exchanged

_VALUES_AT_ONCE = 2**19
"""How many values of pixels a CPU changes at once, so that its caches hold them from one step to the next."""


def changed_by_policy(images: Tensor, policy: Policy) -> Tensor:
    """Change each image by operations that are drawn for it.

    Args:
        images: Images of one or three channels, float32 (N, C, H, W) in [0, 1]; they count as rounded to bytes.
        policy: Which operations are drawn, and how many.

    Returns:
        The changed images, of which each value is a whole number of 255ths.
    """
    rounds = drawn_changes(images, policy)
    at_once = len(images)
    if images.device.type == "cpu":
        at_once = max(1, _VALUES_AT_ONCE // images.shape[1:].numel())
    result = torch.empty_like(images)
    for start in range(0, len(images), at_once):
        rows = slice(start, start + at_once)
        pixels = images[rows].mul(255).round_()
        for changes in rounds:
            pixels = changed(pixels, changes.part(rows))
        result[rows] = pixels.div_(255)
    return result


def changed(pixels: Tensor, changes: Changes) -> Tensor:
    """Do one operation to each image: it passes through all kinds, and those that are not its own do not change it.

    Args:
        pixels: The images: whole numbers from 0 to 255 as float32 (N, C, H, W).
        changes: The operations.

    Returns:
        The changed images, in the same form.
    """
    pixels = moved(pixels, changes)
    greys = grey(pixels)
    means = greys.mean(dim=(1, 2, 3))
    return exchanged(blended(pixels, greys, changes), means, changes)
