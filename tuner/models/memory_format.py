"""The memory format in which a module computes: channels last, which is faster, where its code allows for it."""

from typing import Any

import torch
from torch import Tensor, nn

from tuner.interfaces import ImageShape
from tuner.process.generators import generators_kept


def fit_memory_format(module: nn.Module, image: ImageShape) -> None:
    """Have a module get contiguous images if it cannot compute in channels-last format.

    ``x.view(len(x), -1)`` behind a convolution, as many scripts have it, fails on what is not contiguous.

    Args:
        module: A module on the CPU, of any code.
        image: Its images.
    """
    shape = (1, image.channels, image.height, image.width)
    if _computes(module, shape, torch.channels_last) or not _computes(module, shape, torch.contiguous_format):
        return  # what it cannot compute at all is no matter of the format
    nn.Module.register_forward_pre_hook(module, _contiguous)  # a scripted module hides this method


def placed(module: nn.Module, device: torch.device) -> nn.Module:
    """Move a module to a device, in the memory format in which it computes.

    What is there already stays where it lies: a teacher has several students, whose recorded steps read it there.
    """
    module = module.to(device)
    if _contiguous in module._forward_pre_hooks.values():
        return module
    # torch copies a tensor of one pixel and one channel each time: it does not see that it has the format.
    images = [each for each in (*module.parameters(), *module.buffers()) if each.ndim == 4]
    if all(each.is_contiguous(memory_format=torch.channels_last) for each in images):
        return module
    return module.to(memory_format=torch.channels_last)


def _contiguous(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each.contiguous() if isinstance(each, Tensor) else each for each in inputs)


def _computes(module: nn.Module, shape: tuple[int, ...], memory_format: torch.memory_format) -> bool:
    """Whether a module takes an image in a format, with weights in that format; both stay as they were."""
    training = module.training
    module.to(memory_format=memory_format)
    try:
        with torch.no_grad(), generators_kept():
            module.eval()
            eager = getattr(module, "_orig_mod", module)  # a compiled module would be compiled for this image
            eager(torch.zeros(shape).contiguous(memory_format=memory_format))
    except (Exception, SystemExit):  # code of the user's own raises anything
        return False
    finally:
        module.train(training).to(memory_format=torch.contiguous_format)
    return True
