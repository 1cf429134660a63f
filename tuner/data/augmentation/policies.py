"""torchvision's policies of augmentation, which change one image after the other."""

from typing import Literal

import torch
from torch import Tensor


def changed_by_policy(images: Tensor, policy: Literal["trivial", "rand"]) -> Tensor:
    """Change images of one or three channels, float32 (N, C, H, W) in [0, 1]."""
    from torchvision.transforms import v2

    transform = v2.TrivialAugmentWide() if policy == "trivial" else v2.RandAugment()
    pixels = images.mul(255).round().to(torch.uint8)
    return torch.stack([transform(each) for each in pixels]).to(torch.float32) / 255
