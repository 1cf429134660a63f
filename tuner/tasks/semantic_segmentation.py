"""Semantic segmentation: one class per pixel."""

from typing import Annotated, Literal

from pydantic import Field

from tuner.tasks.losses import MaskLoss, PixelCrossEntropy
from tuner.tasks.single_head import SingleHead


class SemanticSegmentation(SingleHead):
    """Predict the class of each pixel of an image."""

    kind: Literal["semantic_segmentation"] = "semantic_segmentation"
    target: str = "mask"
    """Target of the dataset that is predicted: one with a class for each pixel."""
    loss: Annotated[MaskLoss, Field(discriminator="kind")] = PixelCrossEntropy()
    """Loss: pixel_cross_entropy, pixel_focal or pixel_dice."""
