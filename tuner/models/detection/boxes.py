"""Arithmetic of boxes: tensors whose last dimension is the left, top, right and bottom edge in pixels."""

import torch
from torch import Tensor


def edges(boxes: Tensor) -> Tensor:
    """The edges (..., 4) of a target of boxes (..., 6)."""
    return boxes[..., :4]


def is_learnt(boxes: Tensor) -> Tensor:
    """Whether each row of a target (..., 6) is a box that is trained on, and neither padding nor ignored: (...)."""
    return (boxes[..., 4] >= 0) & (boxes[..., 5] == 0)


def is_ignored(boxes: Tensor) -> Tensor:
    """Whether each row of a target (..., 6) is a box that is neither trained on nor measured: (...)."""
    return (boxes[..., 4] >= 0) & (boxes[..., 5] > 0)


def contains(boxes: Tensor, points: Tensor, least: Tensor | None = None) -> Tensor:
    """Whether each box (N, M, 4) contains each point (A, 2): booleans (N, M, A).

    Args:
        boxes: The boxes.
        points: The points: across, down.
        least: Side up to which a smaller box is enlarged around its centre for each point, (A,); None for none.
    """
    start, end = boxes[..., None, :2], boxes[..., None, 2:]
    if least is not None:
        missing = (least.view(-1, 1) - (end - start)).clamp(min=0) / 2
        start, end = start - missing, end + missing
    return ((points > start) & (points < end)).all(dim=-1)


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """The intersection over union of each box (N, M, 4) with each of others (N, A, 4): (N, M, A)."""
    first, second = first.unsqueeze(2), second.unsqueeze(1)
    sides = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    shared = sides.clamp(min=0).prod(dim=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1) for boxes in (first, second)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-9)
