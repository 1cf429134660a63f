"""Classification: one label per image."""

from typing import Annotated, Literal

from pydantic import Field

from tuner.tasks.losses import ClassLoss, CrossEntropy
from tuner.tasks.single_head import SingleHead


class Classification(SingleHead):
    """Predict the class of an image."""

    kind: Literal["classification"] = "classification"
    target: str = "label"
    """Target of the dataset that is predicted."""
    loss: Annotated[ClassLoss, Field(discriminator="kind")] = CrossEntropy()
    """Loss: cross_entropy, focal or nll."""
