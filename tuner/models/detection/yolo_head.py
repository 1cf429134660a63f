"""The head of a single-stage detector, with its loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.models.detection.assignment import Assignment, assign
from tuner.models.detection.boxes import complete_overlap_loss
from tuner.models.detection.layers import convolution
from tuner.models.detection.selection import Selection
from tuner.models.detection.suppression import float32

_BINS = 16
"""Distances from a place to an edge that a distribution is over: 0 to 15 strides."""
_OBJECTS = 5
"""Objects of an image that the scores of new weights expect, over all places and classes."""


@dataclass(frozen=True)
class Gains:
    """Weights of the terms of the loss: of the classes, the boxes, the distributions of distances, and the masks."""

    classes: float
    boxes: float
    distances: float
    masks: float = 0.0


class BoxHead(nn.Module):
    """Predicts classes and boxes at each place of several scales, with layers of their own for each (Ge et al., 2021).

    Args:
        channels: Channels of the features of each scale.
        classes: Number of classes.
        strides: Pixels between the places of each scale.
        size: Height and width of the images.
        gains: Weights of the terms of the loss.
        selection: Selects the objects among what the places predict.
    """

    points: Tensor
    strides: Tensor

    def __init__(
        self,
        channels: Sequence[int],
        classes: int,
        strides: Sequence[int],
        size: tuple[int, int],
        gains: Gains,
        selection: Selection,
    ) -> None:
        super().__init__()
        self.size, self.gains, self.selection = size, gains, selection
        boxes, scores = channels[0], max(channels[0], min(classes, 100))
        height, width = (side + -side % strides[-1] for side in size)  # as `layers.Pad` pads images
        places = [places_of((height, width), stride) for stride in strides]
        self.boxes, self.scores = nn.ModuleList(), nn.ModuleList()
        for each, found in zip(channels, places, strict=True):
            box, score = nn.Conv2d(boxes, 4 * _BINS, 1), nn.Conv2d(scores, classes, 1)
            nn.init.constant_(score.bias, math.log(_OBJECTS / classes / (len(found) * len(channels))))  # type: ignore[arg-type]
            self.boxes.append(nn.Sequential(convolution(each, boxes), convolution(boxes, boxes), box))
            self.scores.append(
                nn.Sequential(
                    convolution(each, each, groups=each),
                    convolution(each, scores, 1),
                    convolution(scores, scores, groups=scores),
                    convolution(scores, scores, 1),
                    score,
                )
            )
        self.register_buffer("points", torch.cat(places), persistent=False)
        each_stride = [torch.full((len(found),), float(stride)) for found, stride in zip(places, strides, strict=True)]
        self.register_buffer("strides", torch.cat(each_stride), persistent=False)

    def forward(self, features: Sequence[Tensor], target: Tensor | None) -> Tensor:
        """Compute the terms of the loss for a target in training mode; else return the objects that are found."""
        predicted = self.predicted(features)
        # Edges and losses need more digits than matrices do.
        with float32(predicted[0].device.type):
            distances, logits, *more = (each.float() for each in predicted)
            # (N, A, 4, bins)
            distances = distances.view(distances.shape[0], 4, _BINS, -1).permute(0, 3, 1, 2)
            logits = logits.transpose(1, 2)  # (N, A, classes)
            edges = self._edges(distances)
            if not self.training:
                return self.found(logits.sigmoid(), edges, *more)
            assert target is not None, "a detector is trained with the objects of its images"
            return self.losses(logits, distances, edges, target, *more)

    def predicted(self, features: Sequence[Tensor]) -> list[Tensor]:
        """What the layers compute: the logits of the distances (N, 4 * bins, A) and of the classes (N, classes, A)."""
        return [at_places(self.boxes, features), at_places(self.scores, features)]

    def found(self, scores: Tensor, edges: Tensor) -> Tensor:
        """Select the objects, (N, K, 6), by the scores (N, A, classes) and the edges (N, A, 4) of the places."""
        return self.selection(scores, edges, self.size)

    def losses(self, logits: Tensor, distances: Tensor, edges: Tensor, target: Tensor) -> Tensor:
        """Compute the terms of the loss for boxes (N, M, 6)."""
        return self.terms(logits, distances, edges, self.assigned(logits, edges, target))

    def assigned(self, logits: Tensor, edges: Tensor, boxes: Tensor) -> Assignment:
        """Assign boxes (N, M, 6) to the places."""
        return assign(logits.sigmoid().detach(), edges.detach(), self.points, self.strides, boxes)

    def _edges(self, distances: Tensor) -> Tensor:
        """The edges (N, A, 4) of boxes in pixels, by the logits of their distances (N, A, 4, bins)."""
        bins = torch.arange(_BINS, dtype=distances.dtype, device=distances.device)
        found = (distances.softmax(dim=-1) @ bins) * self.strides.unsqueeze(1)
        return torch.cat([self.points - found[..., :2], self.points + found[..., 2:]], dim=-1)

    def terms(self, logits: Tensor, distances: Tensor, edges: Tensor, assignment: Assignment) -> Tensor:
        """The terms of the loss, (N, 3), which are the same for each image: means over what is learnt."""
        weights = assignment.weights
        total = weights.sum().clamp(min=1)
        classes = functional.binary_cross_entropy_with_logits(logits, assignment.scores, reduction="none")
        # What learns no box is compared with itself, as arctangents of nothing have no gradient.
        learns = (weights > 0).unsqueeze(2)
        wanted = torch.where(learns, assignment.boxes, edges.detach())
        overlap = complete_overlap_loss(edges, wanted)
        terms = [
            self.gains.classes * (classes * assignment.counts.unsqueeze(2)).sum(),
            self.gains.boxes * (overlap * weights).sum(),
            self.gains.distances * (self._distance_loss(distances, assignment.boxes) * weights).sum(),
        ]
        return (torch.stack(terms) / total).expand(len(logits), -1)

    def _distance_loss(self, distances: Tensor, boxes: Tensor) -> Tensor:
        """The cross-entropy (N, A) between distributions and the distances of edges, each split over two bins."""
        far = torch.cat([self.points - boxes[..., :2], boxes[..., 2:] - self.points], dim=-1)
        far = (far / self.strides.unsqueeze(1)).clamp(0, _BINS - 1 - 1e-3)
        below = far.long()
        share = far - below
        logs = distances.log_softmax(dim=-1)
        near, next_one = (logs.gather(-1, index.unsqueeze(-1)).squeeze(-1) for index in (below, below + 1))
        return -torch.lerp(near, next_one, share).mean(dim=-1)


def at_places(layers: nn.ModuleList, features: Sequence[Tensor]) -> Tensor:
    """Apply a module to the features of each scale, and join the results at all places: (N, F, A)."""
    return torch.cat([layer(each).flatten(2) for layer, each in zip(layers, features, strict=True)], dim=2)


def places_of(size: tuple[int, int], stride: int) -> Tensor:
    """The centres of the squares of a grid, across and down, in pixels (places, 2), row by row."""
    down, across = (torch.arange(side // stride) * float(stride) + stride / 2 for side in size)
    return torch.cartesian_prod(down, across).flip(1)
