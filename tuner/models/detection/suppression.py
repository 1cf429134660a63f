"""Non-maximum suppression of whole batches in tensors of fixed shapes, as files of exported models need it.

In eager mode each image is computed on its own, and how many boxes it has depends on what is seen in it. A graph that
is exported for any number of images has neither: within `fixed_shapes`, detectors select objects by `best_rows`.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tuner.models.detection.boxes import overlaps

Keep = Callable[[Tensor, Tensor, float, int], Tensor]
"""Non-maximum suppression: takes boxes (N, P, 4), scores (N, P), which are negative for what is no candidate, the
overlap above which the less certain of two boxes is dropped, and the most boxes of an image; returns which are kept,
(N, P)."""

NONE = -1.0
"""The score of what is no candidate."""


class NotExportable(Exception):
    """A model cannot be a graph of fixed shapes; the message says why."""


def kept(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    """The `Keep` of torch's own operators: takes the surest box that is left, again and again."""
    from torch._higher_order_ops.while_loop import while_loop

    places = torch.arange(boxes.shape[1], device=boxes.device).unsqueeze(0)

    def goes_on(step: Tensor, left: Tensor, is_kept: Tensor) -> Tensor:
        return step < most

    def take(step: Tensor, left: Tensor, is_kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        score, place = left.max(dim=1, keepdim=True)
        taken = boxes.gather(1, place.unsqueeze(2).expand(-1, -1, 4))
        is_taken = places == place
        is_gone = (overlaps(taken, boxes).squeeze(1) > overlap) | is_taken
        return step + 1, torch.where(is_gone, torch.full_like(left, NONE), left), is_kept | (is_taken & (score >= 0))

    start = (
        torch.zeros((), dtype=torch.int64, device=boxes.device),
        scores,
        torch.zeros_like(scores, dtype=torch.bool),
    )
    found: tuple[Tensor, Tensor, Tensor] = while_loop(goes_on, take, start)  # type: ignore[no-untyped-call]
    return found[2]


_keep: ContextVar[Keep | None] = ContextVar("_keep", default=None)


@contextmanager
def fixed_shapes(keep: Keep = kept) -> Iterator[None]:
    """Within the body, detectors compute whole batches in tensors of fixed shapes.

    Args:
        keep: Their non-maximum suppression.
    """
    token = _keep.set(keep)
    try:
        yield
    finally:
        _keep.reset(token)


def has_fixed_shapes() -> bool:
    """Whether tensors must have fixed shapes now."""
    return _keep.get() is not None


def float32(device: str) -> AbstractContextManager[Any]:
    """Within the body, a kind of device computes in float32. A file has no autocast, and its graph computes in it."""
    return nullcontext() if has_fixed_shapes() else torch.autocast(device, enabled=False)


def best_places(
    boxes: Tensor, scores: Tensor, groups: Tensor, overlap: float, most: int, longest: int
) -> tuple[Tensor, Tensor]:
    """Select boxes within `fixed_shapes`; those of different groups do not suppress each other.

    Args:
        boxes: The boxes (N, P, 4), in pixels from 0 to `longest`.
        scores: Their scores in [0, 1], (N, P); negative for what is no candidate.
        groups: The group of each box, such as its class, from 0, (N, P).
        overlap: Intersection over union above which the less certain of two boxes of a group is dropped.
        most: Most boxes of an image.
        longest: Longest side of an image in pixels.

    Returns:
        The scores of those that are kept, the surest first, (N, K), `NONE` where there are fewer, and their places, of
        which there are K = min(most, P).
    """
    keep = _keep.get()
    assert keep is not None, "a graph of fixed shapes is computed within `fixed_shapes`"
    apart = boxes + (groups.to(boxes.dtype) * (longest + 1)).unsqueeze(2)
    chosen = torch.where(keep(apart, scores, overlap, most), scores, torch.full_like(scores, NONE))
    best = chosen.topk(min(most, scores.shape[1]), dim=1)
    return best.values, best.indices


def best_rows(rows: Tensor, is_candidate: Tensor, overlap: float, most: int, longest: int) -> Tensor:
    """Select objects within `fixed_shapes`, as `tuner.interfaces.Output` describes them.

    Args:
        rows: Edges, score, class and more values of each prediction, (N, P, 6 + F).
        is_candidate: Which predictions may be objects, (N, P).
        overlap: Intersection over union above which the less certain of two objects of a class is dropped.
        most: Most objects of an image, K.
        longest: Longest side of an image in pixels.

    Returns:
        The objects, (N, K, 6 + F).
    """
    scores = torch.where(is_candidate, rows[..., 4], torch.full_like(rows[..., 4], NONE))
    found, place = best_places(rows[..., :4], scores, rows[..., 5], overlap, most, longest)
    objects = rows.gather(1, place.unsqueeze(2).expand(-1, -1, rows.shape[2]))
    return without(objects, found < 0, most)


def without(objects: Tensor, is_none: Tensor, most: int) -> Tensor:
    """Replace the rows (N, P, 6 + F) that are no objects, and append as many as `most` needs: score 0 and class -1."""
    nothing = functional.one_hot(torch.tensor(5, device=objects.device), objects.shape[2]).to(objects.dtype)
    objects = torch.where(is_none.unsqueeze(2), -nothing, objects)
    missing = most - objects.shape[1]
    if missing <= 0:
        return objects
    return torch.cat([objects, -nothing.expand(objects.shape[0], missing, -1)], dim=1)
