"""The base class of tasks with one head."""

from collections.abc import Mapping
from typing import Self

from tuner.tasks.base import Task
from tuner.tasks.head import Head
from tuner.tasks.losses import AnyLoss


class SingleHead(Task):
    """A task that predicts one target."""

    target: str
    """Target of the dataset that is predicted."""
    loss: AnyLoss
    """Loss."""

    @property
    def named_heads(self) -> dict[str, Head]:
        return {"": Head(target=self.target, loss=self.loss)}

    def with_heads(self, heads: Mapping[str, Head]) -> Self:
        return self.model_copy(update={"loss": heads[""].loss})
