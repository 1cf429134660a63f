"""Boxes, float32 (N, M, 6) as `tuner.interfaces.TargetKind` describes them, as images are augmented."""

from typing import ClassVar

import torch
from torch import Tensor

from tuner.data.augmentation.geometry import moved_bounds
from tuner.data.augmentation.patches import Bounds, EachBounds, Patch
from tuner.interfaces import NO_BOX

LEAST_LEFT = 0.2
"""Smallest share of a box's area that has to be left: of what shows less, nobody can say what it is."""
_LEAST_SIDE = 1.0
"""Smallest side of a box in pixels."""


class Boxes:
    """Targets that are boxes of objects. A box of which too little is left becomes `NO_BOX`."""

    plural: ClassVar[str] = "boxes"
    has_objects: ClassVar[bool] = True

    def flipped(self, values: Tensor, is_flipped: Tensor, width: int) -> Tensor:
        left, top, right, bottom, *rest = values.unbind(dim=-1)
        mirrored = torch.stack([width - right, top, width - left, bottom, *rest], dim=-1)
        is_mirrored = is_flipped.view(-1, 1, 1) & (values[..., 4:5] >= 0)
        return torch.where(is_mirrored, mirrored, values)

    def moved(self, values: Tensor, maps: Tensor, size: tuple[int, int], bounds: Bounds | None = None) -> Tensor:
        height, width = size
        edges = moved_bounds(values[..., :4], maps, size)
        return _in_front(_cut(values, edges, bounds or (0.0, 0.0, float(width), float(height))))

    def pasted(self, own: Tensor, other: Tensor, patch: Patch) -> Tensor:
        return _in_front(torch.cat([_visible(own, patch), _cut(other, other[..., :4], patch.bounds)], dim=1))

    def blended(self, own: Tensor, other: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        none = torch.stack([torch.full_like(own[:1, :1, 0], each) for each in NO_BOX], dim=-1)
        seen = [torch.where(part >= LEAST_LEFT, values, none) for values, part in ((own, share), (other, 1 - share))]
        both = _in_front(torch.cat(seen, dim=1))
        return both, both

    def drawn_object(self, values: Tensor) -> EachBounds:
        is_object = (values[..., 4] >= 0) & (values[..., 5] == 0)
        lots = torch.where(is_object, torch.rand(is_object.shape, device=values.device), -1.0)
        place = lots.argmax(dim=1).view(-1, 1, 1).expand(-1, 1, values.shape[2])
        edges = torch.where(is_object.any(dim=1).view(-1, 1, 1), values.gather(1, place), 0.0)
        left, top, right, bottom = edges[..., :4].unbind(dim=-1)
        return left, top, right, bottom

    def shapes(self, values: Tensor) -> Tensor | None:
        return None


def _in_front(values: Tensor) -> Tensor:
    """Move the rows that are no boxes behind those that are."""
    order = (values[..., 4] < 0).int().argsort(dim=1, stable=True)
    return values.gather(1, order.unsqueeze(2).expand_as(values))


def _visible(values: Tensor, patch: Patch) -> Tensor:
    """The boxes of what a patch does not hide."""
    edges = values[..., :4]
    left, top, right, bottom = edges.round().unbind(dim=-1)
    is_kept = patch.counts(edges) <= (1 - LEAST_LEFT) * (right - left) * (bottom - top)
    return _kept(values, _beside(edges, patch.bounds) if patch.is_whole else edges, is_kept)


def _beside(edges: Tensor, bounds: Bounds) -> Tensor:
    """The bounds of what a rectangle leaves of boxes (N, M, 4)."""
    (left, top, right, bottom), (x1, y1, x2, y2) = bounds, edges.unbind(dim=-1)
    is_across, is_down = (left <= x1) & (right >= x2), (top <= y1) & (bottom >= y2)
    sides = [
        torch.where(is_down & (left <= x1), x1.clamp(min=right), x1),
        torch.where(is_across & (top <= y1), y1.clamp(min=bottom), y1),
        torch.where(is_down & (right >= x2), x2.clamp(max=left), x2),
        torch.where(is_across & (bottom >= y2), y2.clamp(max=top), y2),
    ]
    return torch.stack(sides, dim=-1)


def _cut(values: Tensor, edges: Tensor, bounds: Bounds) -> Tensor:
    """Give boxes new edges (N, M, 4), of which what lies within bounds is left."""
    left, top, right, bottom = bounds
    x1, y1, x2, y2 = edges.unbind(dim=-1)
    x1, x2 = (x.clamp(min=left).clamp(max=right) for x in (x1, x2))
    y1, y2 = (y.clamp(min=top).clamp(max=bottom) for y in (y1, y2))
    cut = torch.stack([x1, y1, x2, y2], dim=-1)
    return _kept(values, cut, _area(cut) >= LEAST_LEFT * _area(edges))


def _kept(values: Tensor, edges: Tensor, is_kept: Tensor) -> Tensor:
    """Give boxes new edges (N, M, 4), and drop those that are not kept (N, M), or too narrow."""
    left, top, right, bottom = edges.unbind(dim=-1)
    is_wide = (right - left >= _LEAST_SIDE) & (bottom - top >= _LEAST_SIDE)
    is_box = is_kept & is_wide & (values[..., 4] >= 0)
    columns = (left, top, right, bottom, *values[..., 4:].unbind(dim=-1))
    return torch.stack([torch.where(is_box, each, none) for each, none in zip(columns, NO_BOX, strict=True)], dim=-1)


def _area(edges: Tensor) -> Tensor:
    left, top, right, bottom = edges.unbind(dim=-1)
    return (right - left) * (bottom - top)
