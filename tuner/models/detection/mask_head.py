"""The head of a single-stage detector whose objects have masks, too (Bolya et al., 2019)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.interfaces.instances import boxes_of, mask_sides, masks_of
from tuner.models.detection.assignment import Assignment
from tuner.models.detection.layers import convolution
from tuner.models.detection.selection import Selection
from tuner.models.detection.yolo_head import BoxHead, Gains, at_places

_PROTOTYPES = 16
"""Masks of the whole image of which that of an object is a sum."""
_LEARNT = 32
"""Places of an image whose masks are learnt: the best ones."""
_BOX = 6


class MaskHead(BoxHead):
    """Predicts masks beside boxes: sums of prototypes, with weights of their own at each place.

    Args:
        channels: Channels of the features of each scale.
        classes: Number of classes.
        strides: Pixels between the places of each scale.
        size: Height and width of the images.
        gains: Weights of the terms of the loss.
        selection: Selects the objects among what the places predict.
        most: Most objects of an image that are learnt.
    """

    def __init__(
        self,
        channels: Sequence[int],
        classes: int,
        strides: Sequence[int],
        size: tuple[int, int],
        gains: Gains,
        selection: Selection,
        most: int,
    ) -> None:
        super().__init__(channels, classes, strides, size, gains, selection)
        self.most, self.sides, self.divisor = most, mask_sides(*size), strides[-1]
        self.weights = nn.ModuleList(
            nn.Sequential(convolution(each, channels[0]), nn.Conv2d(channels[0], _PROTOTYPES, 1)) for each in channels
        )
        self.prototypes = nn.Sequential(
            convolution(channels[0], channels[0]),
            nn.Upsample(scale_factor=2, mode="nearest"),
            convolution(channels[0], channels[0]),
            nn.Conv2d(channels[0], _PROTOTYPES, 1),
        )

    def predicted(self, features: Sequence[Tensor]) -> list[Tensor]:
        """What `BoxHead` computes, the weights (N, prototypes, A) and the prototypes (N, prototypes, h, w)."""
        return [*super().predicted(features), at_places(self.weights, features), self.prototypes(features[0])]

    def found(self, scores: Tensor, edges: Tensor, *more: Tensor) -> Tensor:
        weights, prototypes = more
        selected = self.selection(scores, edges, self.size, weights.transpose(1, 2))
        objects, own = selected[..., :_BOX], selected[..., _BOX:]
        logits = functional.interpolate(self._logits(own, prototypes), size=self.sides, mode="bilinear")
        masks = logits.sigmoid() * self._within(objects[..., :4], self.sides)
        return torch.cat([objects, masks.flatten(2)], dim=2)

    def losses(self, logits: Tensor, distances: Tensor, edges: Tensor, target: Tensor, *more: Tensor) -> Tensor:
        boxes, numbers = boxes_of(target, self.most)
        assignment = self.assigned(logits, edges, boxes)
        masks = self.gains.masks * self._mask_loss(target, numbers, assignment, *more)
        terms = self.terms(logits, distances, edges, assignment)
        return torch.cat([terms, masks.expand(len(terms), 1)], dim=1)

    def _mask_loss(
        self, target: Tensor, numbers: Tensor, assignment: Assignment, weights: Tensor, prototypes: Tensor
    ) -> Tensor:
        """The mean over the best places of the cross-entropy of the pixels of their boxes."""
        strength, best = assignment.weights.topk(min(_LEARNT, assignment.weights.shape[1]), dim=1)  # (N, P)
        place = best.unsqueeze(2)
        own = weights.transpose(1, 2).gather(1, place.expand(-1, -1, _PROTOTYPES))
        number = numbers.gather(1, assignment.objects.gather(1, best)) * (strength > 0)
        logits = self._logits(own, prototypes)
        sides = (logits.shape[2], logits.shape[3])
        wanted = masks_of(target, number, sides)
        losses = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        within = self._within(assignment.boxes.gather(1, place.expand(-1, -1, 4)), sides)
        of_object = (losses * within).sum(dim=(2, 3)) / within.sum(dim=(2, 3)).clamp(min=1)
        return (of_object * strength).sum() / strength.sum().clamp(min=1)

    def _logits(self, weights: Tensor, prototypes: Tensor) -> Tensor:
        """The logits of masks (N, K, h, w) of the prototypes' size, by the weights of the prototypes (N, K, ...)."""
        masks = torch.einsum("nkp,nphw->nkhw", weights, prototypes)
        # What `layers.Pad` has appended is cut off.
        height, width = (
            -(-side * cells // (side + -side % self.divisor))
            for side, cells in zip(self.size, masks.shape[2:], strict=True)
        )
        return masks[:, :, :height, :width]

    def _within(self, edges: Tensor, sides: tuple[int, int]) -> Tensor:
        """Which pixels of masks of these sides lie within boxes (N, K, 4): 1 or 0, float32 (N, K, h, w)."""
        (height, width), (down, across) = self.size, sides
        x = (torch.arange(across, device=edges.device) + 0.5) * (width / across)
        y = (torch.arange(down, device=edges.device) + 0.5) * (height / down)
        left, top, right, bottom = (each.view(*each.shape, 1, 1) for each in edges.unbind(dim=-1))
        inside = (x >= left) & (x <= right) & (y.view(-1, 1) >= top) & (y.view(-1, 1) <= bottom)
        return inside.float()
