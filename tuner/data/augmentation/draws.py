"""Random numbers for the images of a batch, on its device."""

import torch
from torch import Tensor


def uniform(images: Tensor, low: float, high: float) -> Tensor:
    """Draw a number from [low, high) for each image: float32 (N,)."""
    return torch.rand(len(images), device=images.device) * (high - low) + low


def chosen(images: Tensor, share: float) -> Tensor:
    """Choose a share of the images: booleans (N,)."""
    return torch.rand(len(images), device=images.device) < share


def others(images: Tensor) -> Tensor:
    """Draw another image of the batch for each one, so that each is drawn once: int64 (N,); of one image, itself."""
    order = torch.randperm(len(images), device=images.device)
    return torch.empty_like(order).scatter_(0, order, order.roll(1))
