"""Task-aligned assignment: which place of a detector learns which box (Feng et al., 2021, section 3.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.models.detection.boxes import contains, edges, is_ignored, is_learnt, overlaps

_CANDIDATES = 10
"""Places that learn each box."""
_ALPHA, _BETA = 0.5, 6.0
"""Powers of the score and of the overlap in how well a place predicts a box."""


@dataclass(frozen=True)
class Assignment:
    """What each of A places learns.

    Args:
        scores: How certain it is to be of each class, float32 (N, A, classes) in [0, 1]: 0 for all is background.
        boxes: The edges of its box, float32 (N, A, 4); of a place that learns none, any.
        objects: Which row of the target its box is, int64 (N, A); of a place that learns none, any.
        counts: Weight of the classes of each place, (N, A): 0 where an object is ignored, else 1.
    """

    scores: Tensor
    boxes: Tensor
    objects: Tensor
    counts: Tensor

    @property
    def weights(self) -> Tensor:
        """Weight of the box of each place, (N, A); 0 where it learns none."""
        return self.scores.sum(dim=-1)


@torch.no_grad()
def assign(scores: Tensor, predicted: Tensor, points: Tensor, strides: Tensor, boxes: Tensor) -> Assignment:
    """Assign boxes to places by how well these predict them. Nothing waits for the device.

    A place within a box is a candidate for it; a box that is smaller than the distance of places is enlarged for that.
    Each box gets the ten candidates whose score for its class and overlap with it are the highest; a place that several
    boxes would get learns the one that it overlaps most.

    Args:
        scores: The scores of the classes at each place, float32 (N, A, classes) in [0, 1].
        predicted: The edges of the box that each place predicts, (N, A, 4).
        points: The places, across and down, in pixels (A, 2).
        strides: The distance of each place from the next one of its scale, in pixels (A,).
        boxes: The target, (N, M, 6).
    """
    count, most = boxes.shape[:2]
    learnt = is_learnt(boxes).unsqueeze(2)
    classes = boxes[..., 4].clamp(min=0).long()
    overlap = overlaps(edges(boxes), predicted)  # (N, M, A)
    score = scores.transpose(1, 2).gather(1, classes.unsqueeze(2).expand(-1, -1, len(points)))
    # Powers of the smallest overlaps would be 0 in float32, and a box that nothing overlaps yet would learn nothing.
    alignment = score.clamp(min=1e-9).pow(_ALPHA) * overlap.clamp(min=1e-4).pow(_BETA)
    candidates = contains(edges(boxes), points, strides) & learnt
    ranked = torch.where(candidates, alignment, -1.0).topk(min(_CANDIDATES, len(points)), dim=2).indices
    chosen = torch.zeros_like(candidates).scatter_(2, ranked, True) & candidates
    # A place learns one box at most.
    best = torch.where(chosen, overlap, -1.0).argmax(dim=1, keepdim=True)
    chosen = chosen & (torch.arange(most, device=boxes.device).view(1, -1, 1) == best)

    # The best place of a box learns the score of the best overlap with it, and others less.
    alignment = torch.where(chosen, alignment, 0.0)
    strength = torch.where(chosen, overlap, 0.0).amax(dim=2, keepdim=True)
    strength = alignment / alignment.amax(dim=2, keepdim=True).clamp(min=1e-30) * strength  # (N, M, A)
    of_box = best.squeeze(1)  # (N, A)
    value = strength.gather(1, best).squeeze(1)
    # one_hot would ask for the largest class.
    is_its_class = classes.gather(1, of_box).unsqueeze(2) == torch.arange(scores.shape[-1], device=boxes.device)
    wanted = is_its_class * value.unsqueeze(2)
    place = of_box.unsqueeze(2).expand(-1, -1, 4)
    ignored = (contains(edges(boxes), points) & is_ignored(boxes).unsqueeze(2)).any(dim=1)
    counts = (~ignored | (value > 0)).float()
    return Assignment(wanted.float(), edges(boxes).gather(1, place), of_box, counts.view(count, -1))
