"""The change of a batch by a policy."""

import torch
from torch import Tensor

from tuner.data.augmentation.policies.distributions import Policy, drawn_changes
from tuner.data.augmentation.policies.rounds import Round

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
    height, width = images.shape[-2:]
    rounds = [Round.of(changes, height, width) for changes in drawn_changes(images, policy)]
    at_once = len(images)
    if images.device.type == "cpu":
        at_once = max(1, _VALUES_AT_ONCE // images.shape[1:].numel())
    result = torch.empty_like(images)
    for start in range(0, len(images), at_once):
        rows = slice(start, start + at_once)
        pixels = images[rows].mul(255).round_()
        for each in rounds:
            pixels = each.part(rows).computed(pixels)
        result[rows] = pixels.div_(255)
    return result
