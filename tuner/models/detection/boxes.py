"""Arithmetic of boxes: tensors whose last dimension is the left, top, right and bottom edge in pixels."""

import math

import torch
from torch import Tensor

_EPS = 1e-6


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


def complete_overlap_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """The CIoU loss of boxes (..., 4) beside the wanted ones: (...) (Zheng et al., 2020, equations 8 to 11).

    Its values and gradients are those of torchvision's `complete_box_iou_loss`, which waits for the device, since it
    selects the boxes that overlap.
    """
    left, top, right, bottom = found.unbind(dim=-1)
    left2, top2, right2, bottom2 = wanted.unbind(dim=-1)
    width, height, width2, height2 = right - left, bottom - top, right2 - left2, bottom2 - top2
    across = torch.minimum(right, right2) - torch.maximum(left, left2)
    down = torch.minimum(bottom, bottom2) - torch.maximum(top, top2)
    shared = torch.where((across > 0) & (down > 0), across * down, 0.0)
    overlap = shared / (width * height + width2 * height2 - shared + _EPS)
    # How far the centres are from each other, as a share of the diagonal of the smallest box around both.
    distance = ((left + right - left2 - right2) ** 2 + (top + bottom - top2 - bottom2) ** 2) / 4
    around = torch.maximum(right, right2) - torch.minimum(left, left2)
    high = torch.maximum(bottom, bottom2) - torch.minimum(top, top2)
    distance = distance / (around**2 + high**2 + _EPS)
    aspect = (4 / math.pi**2) * (torch.atan(width2 / height2) - torch.atan(width / height)) ** 2
    with torch.no_grad():
        share = aspect / (1 - overlap + aspect + _EPS)
    return 1 - overlap + distance + share * aspect
