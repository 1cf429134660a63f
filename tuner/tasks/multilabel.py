"""Multi-label classification: any number of labels per image."""

from typing import Annotated, Literal

from pydantic import Field

from tuner.tasks.losses import BinaryCrossEntropy, MultilabelLoss
from tuner.tasks.single_head import SingleHead


class Multilabel(SingleHead):
    """Predict for each class whether an image has it; an image may have several classes, or none."""

    kind: Literal["multilabel"] = "multilabel"
    target: str = "label"
    """Target of the dataset that is predicted: one with any number of classes per image."""
    loss: Annotated[MultilabelLoss, Field(discriminator="kind")] = BinaryCrossEntropy()
    """Loss: binary_cross_entropy or binary_focal."""
