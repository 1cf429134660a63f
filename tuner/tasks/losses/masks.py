"""Losses over masks, in which each pixel has one class: outputs are logits (N, classes, H, W).

Pixels whose class is unknown do not count. A loss is the mean over the samples of a value of each sample, so that the
micro-batches of a batch add up to it.
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tuner.config import Tunable
from tuner.interfaces import IGNORED, TargetKind
from tuner.tasks.losses.base import focused
from tuner.tasks.losses.classes import OneClassLoss


class OnePixelLoss(OneClassLoss):
    """A loss over the classes of pixels. Its reported value is the cross-entropy, for which no class weighs more."""

    target_kind: ClassVar[TargetKind] = "mask"

    def measure(self, output: Tensor, target: Tensor) -> Tensor:
        return _mean(_cross_entropy(output, target), target)


class PixelCrossEntropy(OnePixelLoss):
    """Cross-entropy between logits (N, classes, H, W) and the classes of the pixels (N, H, W)."""

    kind: Literal["pixel_cross_entropy"] = "pixel_cross_entropy"
    label_smoothing: Annotated[float, Tunable({"uniform": [0, 0.2]})] = Field(0.0, ge=0, lt=1)
    """Share of the probability of the true class that is spread over all classes."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        weights = self._weights(output.device)
        return _mean(_cross_entropy(output, target, weights, self.label_smoothing), target)


class PixelFocal(OnePixelLoss):
    """Cross-entropy in which pixels that are classified well weigh less (Lin et al., 2017)."""

    kind: Literal["pixel_focal"] = "pixel_focal"
    gamma: float = Field(2.0, ge=0, le=10)
    """Power of the probability of all other classes, by which a pixel is weighted; 0 weighs all the same."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        losses = focused(_cross_entropy(output, target), self.gamma)
        weights = self._weights(output.device)
        if weights is not None:
            losses = losses * weights[target.long().clamp(max=len(weights) - 1)]  # ignored pixels have no loss
        return _mean(losses, target)


class PixelDice(OnePixelLoss):
    """How far the overlap of predicted and true regions is from a perfect one (Milletari et al., 2016).

    It is 1 minus the Dice coefficient of each class, with probabilities as the predicted region, averaged over the
    classes of a sample, and thus weighs small regions as much as large ones.
    """

    kind: Literal["pixel_dice"] = "pixel_dice"
    cross_entropy: Annotated[float, Tunable({"uniform": [0, 1]})] = Field(1.0, ge=0, le=100)
    """Weight of the cross-entropy that is added, which has steadier gradients at the start of a training."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        weights = self._weights(output.device)
        classes = output.shape[1]
        known = (target != IGNORED).unsqueeze(1)
        probabilities = output.softmax(dim=1) * known
        truth = (target.unsqueeze(1) == torch.arange(classes, device=target.device).view(1, -1, 1, 1)).to(output.dtype)
        overlap, size = (probabilities * truth).sum(dim=(2, 3)), (probabilities + truth).sum(dim=(2, 3))
        # One pixel is added to both, so that a class that is nowhere and is not predicted has a perfect overlap.
        distances = 1 - (2 * overlap + 1) / (size + 1)
        loss = (distances if weights is None else distances * weights).mean()
        if self.cross_entropy:
            loss = loss + self.cross_entropy * _mean(_cross_entropy(output, target, weights), target)
        return loss


def _cross_entropy(
    output: Tensor, target: Tensor, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """The cross-entropy of each pixel (N, H, W), 0 where its class is unknown."""
    return F.cross_entropy(
        output, target.long(), weights, ignore_index=IGNORED, reduction="none", label_smoothing=label_smoothing
    )


def _mean(losses: Tensor, target: Tensor) -> Tensor:
    """The mean over the samples of the mean over the pixels of each whose class is known; 0 if none is."""
    known = (target != IGNORED).sum(dim=(1, 2)).clamp(min=1)
    return (losses.sum(dim=(1, 2)) / known).mean()
