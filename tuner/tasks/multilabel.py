"""Multi-label classification: any number of labels per image."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field

from tuner.tasks.base import Task
from tuner.tasks.head import Head
from tuner.tasks.losses import BinaryCrossEntropy, MultilabelLoss


class Multilabel(Task):
    """Predict for each class whether an image has it; an image may have several classes, or none."""

    kind: Literal["multilabel"] = "multilabel"
    target: str = "label"
    """Target of the dataset that is predicted: one with any number of classes per image."""
    loss: Annotated[MultilabelLoss, Field(discriminator="kind")] = BinaryCrossEntropy()
    """Loss: binary_cross_entropy or binary_focal."""

    @property
    def named_heads(self) -> dict[str, Head]:
        return {"": Head(target=self.target, loss=self.loss)}

    def with_heads(self, heads: Mapping[str, Head]) -> Self:
        return self.model_copy(update={"loss": heads[""].loss})
