"""Selection of the objects among all that a detector predicts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.models.detection.suppression import best_rows, has_fixed_shapes

_CANDIDATES = 5
"""Predictions that are compared for each object that may be found."""


@dataclass(frozen=True)
class Selection:
    """Keeps the surest predictions, and of those of one class that overlap the surest one.

    Args:
        most: Most objects of an image.
        score: Least score of an object.
        overlap: Intersection over union above which the less certain of two objects of a class is dropped.
    """

    most: int
    score: float
    overlap: float

    def __call__(self, scores: Tensor, edges: Tensor, size: tuple[int, int], more: Tensor | None = None) -> Tensor:
        """Select the objects of images, float32 (N, most, 6 + F), as `tuner.interfaces.Output` describes them.

        Args:
            scores: The scores of the classes at each place, float32 (N, A, classes).
            edges: The box that each place predicts, (N, A, 4).
            size: Height and width of the images, to which boxes are cut.
            more: More values of each place, (N, A, F), which an object gets behind its own; None for none.
        """
        count = min(_CANDIDATES * self.most, scores.shape[1] * scores.shape[2])
        best, index = scores.flatten(1).topk(count, dim=1)
        place, classes = index // scores.shape[2], index % scores.shape[2]
        limits = edges.new_tensor([size[1], size[0], size[1], size[0]])
        boxes = edges.gather(1, place.unsqueeze(2).expand(-1, -1, 4)).clamp(min=0).minimum(limits)
        columns = [boxes, best.unsqueeze(2), classes.unsqueeze(2).to(boxes.dtype)]
        if more is not None:
            columns.append(more.gather(1, place.unsqueeze(2).expand(-1, -1, more.shape[2])))
        found = torch.cat(columns, dim=2)
        if has_fixed_shapes():
            return best_rows(found, self._are_candidates(found), self.overlap, self.most, max(size))
        return torch.stack([self._of_image(each) for each in found])

    def _are_candidates(self, found: Tensor) -> Tensor:
        """Which predictions (..., 6 + F) may be objects."""
        return (found[..., 4] >= self.score) & (found[..., 2:4] > found[..., :2]).all(dim=-1)

    def _of_image(self, found: Tensor) -> Tensor:
        """Select among predictions (P, 6 + F), the surest first."""
        from torchvision.ops import batched_nms

        found = found[self._are_candidates(found)]
        found = found[batched_nms(found[:, :4], found[:, 4], found[:, 5].long(), self.overlap)[: self.most]]
        padding = found.new_zeros((self.most - len(found), found.shape[1]))
        padding[:, 5] = -1
        return torch.cat([found, padding])
