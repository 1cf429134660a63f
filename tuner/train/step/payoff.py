"""Whether compiling a model pays off over a training: by counting and not by a clock, so that it is always the same."""

import torch
from torch import nn

from tuner.interfaces import ImageShape

COMPILE_SECONDS = 60.0
"""Seconds that compiling a model for a GPU is taken to need, if its cache has nothing. It is an assumption."""
GAIN = 1.15
"""By how much a compiled step is taken to be faster than one that is only recorded. It is an assumption: for the small
CNN an H100 was measured to be 1.36 times as fast, where launches and not arithmetic take the time."""
MARGIN = 2.0
"""How many times its cost the saving has to be."""
_RATE = 1.0e12
"""Operations a second of a multiprocessor in the training of a model: those of a ResNet-18 of width 64 on an H100, with
42,000 images a second in bfloat16. Most trainings, and most GPUs, are slower: they save more than is expected."""
LEAST_SECONDS = MARGIN * COMPILE_SECONDS / (1 - 1 / GAIN)
"""Seconds of a training from which on compiling pays off."""
_FORWARD_AND_BACKWARD = 3
"""Operations of a training step as a multiple of those of its forward pass."""


def pays_off(steps: int, seconds_a_step: float, compile_seconds: float = COMPILE_SECONDS, gain: float = GAIN) -> bool:
    """Whether compiling saves clearly more than it costs.

    Args:
        steps: Steps of the training.
        seconds_a_step: Seconds of a step that is not compiled.
        compile_seconds: Seconds that compiling takes.
        gain: By how much a compiled step is faster, 1 or more.
    """
    return steps * seconds_a_step * (1 - 1 / gain) > MARGIN * compile_seconds


def seconds_a_step(operations: int, samples: int, multiprocessors: int) -> float:
    """The seconds that a GPU needs at the least for the arithmetic of a training step.

    Args:
        operations: Floating-point operations of a forward pass for one sample.
        samples: Samples of a step.
        multiprocessors: Multiprocessors of the GPU.
    """
    return _FORWARD_AND_BACKWARD * operations * samples / (_RATE * multiprocessors)


def operations_of(model: nn.Module, image: ImageShape, device: torch.device) -> int | None:
    """Count the floating-point operations of matrices and convolutions in a model's outputs for one image.

    The model is in eval mode behind that.

    Returns:
        The number; None if they cannot be counted.
    """
    from torch.utils.flop_counter import FlopCounterMode

    model.eval()
    images = torch.zeros((1, image.channels, image.height, image.width), device=device)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(images)
    except Exception:  # a model of the user's own raises anything; it will raise it again as it is trained
        return None
    return int(counter.get_total_flops())
