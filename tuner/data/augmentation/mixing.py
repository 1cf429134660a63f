"""Mixup (Zhang et al., 2018) and CutMix (Yun et al., 2019): a batch is mixed with itself in another order."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tuner.data.augmentation.draws import others
from tuner.data.augmentation.located import Located
from tuner.data.augmentation.patches import rectangle
from tuner.interfaces import Batch, Mixed, Targets


def mixed(batch: Batch, *, mixup: float, cutmix: float, located: Mapping[str, Located]) -> Batch:
    """Mix a batch, of which one image alone is left as it is.

    Args:
        batch: The batch.
        mixup: Parameter alpha of mixup; 0 for none.
        cutmix: Parameter alpha of CutMix; 0 for none. A batch gets one of the two.
        located: The targets that lie at places of an image: what is seen in an image is part of both its own targets
            and the other ones, where that can be.
    """
    if len(batch) < 2:
        return batch
    images = batch.inputs
    order = others(images)
    other = {name: each[order] for name, each in batch.targets.items()}
    if not cutmix:
        return _blended(batch, images[order], other, _share(mixup, images), located)
    pasted = _pasted(batch, images[order], other, _share(cutmix, images), located)
    if not mixup:
        return pasted
    blended = _blended(batch, images[order], other, _share(mixup, images), located)
    return _either(torch.rand((), device=images.device) < 0.5, pasted, blended)


def _share(alpha: float, images: Tensor) -> Tensor:
    """Draw a share from Beta(alpha, alpha), a scalar on the device of the images."""
    parameter = torch.full((), alpha, device=images.device)
    # To validate the arguments, the host would wait for the device.
    share: Tensor = torch.distributions.Beta(parameter, parameter, validate_args=False).sample()
    return share


def _blended(
    batch: Batch, others: Tensor, other_targets: Targets, share: Tensor, located: Mapping[str, Located]
) -> Batch:
    own, other = dict(batch.targets), dict(other_targets)
    for name, each in located.items():
        own[name], other[name] = each.blended(own[name], other[name], share)
    return Batch(torch.lerp(others, batch.inputs, share), own, Mixed(other, share))


def _pasted(
    batch: Batch, others: Tensor, other_targets: Targets, share: Tensor, located: Mapping[str, Located]
) -> Batch:
    """Paste a rectangle that leaves about a share of the image, and has its aspect ratio."""
    height, width = batch.inputs.shape[-2:]
    tall, wide = ((side * (1 - share).sqrt()).round() for side in (height, width))
    top, left = (
        (torch.rand((), device=share.device) * (most + 1)).floor().minimum(most)
        for most in (height - tall, width - wide)
    )
    bounds = (left.view(1, 1), top.view(1, 1), (left + wide).view(1, 1), (top + tall).view(1, 1))
    patch = rectangle(bounds, batch.inputs)
    own, other = dict(batch.targets), dict(other_targets)
    for name, each in located.items():
        own[name] = other[name] = each.pasted(own[name], other[name], patch)
    images = torch.where(patch.pixels.unsqueeze(1), others, batch.inputs)
    return Batch(images, own, Mixed(other, 1 - tall * wide / (height * width)))


def _either(is_first: Tensor, first: Batch, second: Batch) -> Batch:
    """One of two batches, as a boolean on the device says."""
    assert first.mixed is not None and second.mixed is not None, "both are mixed"
    own, other = {}, {}
    for name, target in first.targets.items():
        own[name] = torch.where(is_first, target, second.targets[name])
        others = first.mixed.targets[name], second.mixed.targets[name]
        # What an image has of both is one target, for whose loss the share does not matter.
        is_one = others[0] is target and others[1] is second.targets[name]
        other[name] = own[name] if is_one else torch.where(is_first, *others)
    share = torch.where(is_first, first.mixed.share, second.mixed.share)
    return Batch(torch.where(is_first, first.inputs, second.inputs), own, Mixed(other, share))
