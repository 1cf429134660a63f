"""Copy and paste (Ghiasi et al., 2021): an image gets an object of another one of the batch, at the same place."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from tuner.data.augmentation.draws import chosen, others
from tuner.data.augmentation.located import Located
from tuner.data.augmentation.patches import rectangle
from tuner.interfaces import Batch


def with_objects(batch: Batch, share: float, located: Mapping[str, Located]) -> Batch:
    """Paste an object into a share of the images, where the drawn one of the other images has any.

    The object is the pixels in a box; where there are masks, those of them that are no background.
    """
    if len(batch) < 2:
        return batch
    images, order = batch.inputs, others(batch.inputs)
    other = {name: batch.targets[name][order] for name in located}
    objects = next(each.drawn_object(other[name]) for name, each in located.items() if each.has_objects)
    is_chosen = chosen(images, share).unsqueeze(1)
    left, top, right, bottom = (torch.where(is_chosen, edge, 0.0) for edge in objects)
    patch = rectangle((left, top, right, bottom), images)
    for name, each in located.items():
        shapes = each.shapes(other[name])
        if shapes is not None:
            patch = replace(patch, pixels=patch.pixels & shapes, is_whole=False)
    result = torch.where(patch.pixels.unsqueeze(1), images[order], images)
    values = {name: each.pasted(batch.targets[name], other[name], patch) for name, each in located.items()}
    return Batch(result, batch.targets | values)
