"""Classification: one label per image."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field

from tuner.tasks.base import Task
from tuner.tasks.head import Head
from tuner.tasks.losses import ClassLoss, CrossEntropy


class Classification(Task):
    """Predict the class of an image."""

    kind: Literal["classification"] = "classification"
    target: str = "label"
    """Target of the dataset that is predicted."""
    loss: Annotated[ClassLoss, Field(discriminator="kind")] = CrossEntropy()
    """Loss: cross_entropy, focal or nll."""

    @property
    def named_heads(self) -> dict[str, Head]:
        return {"": Head(target=self.target, loss=self.loss)}

    def with_heads(self, heads: Mapping[str, Head]) -> Self:
        return self.model_copy(update={"loss": heads[""].loss})
