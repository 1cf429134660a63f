"""Mixup (Zhang et al., 2018) and CutMix (Yun et al., 2019): a batch is mixed with itself in another order."""

import math
from collections.abc import Mapping

import torch

from tuner.data.augmentation.draws import others
from tuner.data.augmentation.located import Located
from tuner.data.augmentation.patches import rectangle
from tuner.interfaces import Batch, Mixed


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
    cut = cutmix > 0 and (mixup == 0 or torch.rand(()).item() < 0.5)
    alpha = cutmix if cut else mixup
    share = torch.distributions.Beta(alpha, alpha).sample().item()  # on the host, which does not wait for it
    order = others(images)
    own, other = dict(batch.targets), {name: each[order] for name, each in batch.targets.items()}
    if cut:
        height, width = images.shape[-2:]
        tall, wide = (round(side * math.sqrt(1 - share)) for side in (height, width))
        top, left = (int(torch.randint(most + 1, ()).item()) for most in (height - tall, width - wide))
        patch = rectangle((left, top, left + wide, top + tall), images)
        images = torch.where(patch.pixels.unsqueeze(1), images[order], images)
        share = 1 - tall * wide / (height * width)
        for name, each in located.items():
            own[name] = other[name] = each.pasted(own[name], other[name], patch)
    else:
        images = torch.lerp(images[order], images, share)
        for name, each in located.items():
            own[name], other[name] = each.blended(own[name], other[name], share)
    return Batch(images, own, Mixed(other, share))
