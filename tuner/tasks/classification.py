"""One label an image."""

from typing import Annotated, Literal

from pydantic import Field

from tuner.tasks.base import Task
from tuner.tasks.head import Head
from tuner.tasks.losses import ClassLoss, CrossEntropy


class Classification(Task):
    """Which class does an image show?"""

    kind: Literal["classification"] = "classification"
    target: str = "label"
    """The dataset's target that is learnt."""
    loss: Annotated[ClassLoss, Field(discriminator="kind")] = CrossEntropy()
    """cross_entropy or nll."""

    @property
    def named_heads(self) -> dict[str, Head]:
        return {"": Head(target=self.target, loss=self.loss)}
