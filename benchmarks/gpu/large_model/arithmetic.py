"""How much arithmetic a training needs, and how much of it the device does in a second in the best case."""

import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def operations(model: nn.Module, side: int) -> int:
    """Floating-point operations of a training step for one image, forward and backward: a multiplication and an
    addition are two.

    Args:
        model: A model of images with three channels, whose parameters may lie on the device ``meta``.
        side: Side of the images in pixels.
    """
    inputs = torch.zeros(2, 3, side, side, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter:
        model(inputs).sum().backward()
    return int(counter.get_total_flops()) // len(inputs)


def multiplication_rate(device: torch.device, side: int, repeats: int = 20) -> float:
    """Operations per second of the multiplication of square matrices in bfloat16.

    Args:
        device: Where.
        side: Rows of the matrices.
        repeats: How often, after a first time that does not count.
    """
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    torch.mm(left, right)
    _wait(device)
    started = time.perf_counter()
    for _ in range(repeats):
        torch.mm(left, right)
    _wait(device)
    return float(2 * side**3 * repeats / (time.perf_counter() - started))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
