"""Multi-task learning: several heads on one trunk."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator

from tuner.tasks.base import Task
from tuner.tasks.head import Head
from tuner.tasks.losses import NLL, CrossEntropy

HeadName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


def _digit_and_aux() -> dict[str, Head]:
    """Two heads that predict the label: one with a hidden layer, one without."""
    return {
        "digit": Head(target="label", loss=NLL(), hidden=128),
        "aux": Head(target="label", loss=CrossEntropy(), hidden=0),
    }


class Multitask(Task):
    """Predict several targets. The training loss is the sum of the heads' losses, weighted."""

    kind: Literal["multitask"] = "multitask"
    heads: dict[HeadName, Head] = Field(default_factory=_digit_and_aux)
    """The heads by name; the name is part of each metric's name, as in ``val_digit_accuracy``."""

    @field_validator("heads")
    @classmethod
    def _some_head_learns(cls, heads: dict[str, Head]) -> dict[str, Head]:
        if not heads:
            raise ValueError("needs at least one head")
        if not any(head.weight > 0 for head in heads.values()):
            raise ValueError("at least one head must have a weight above 0")
        return heads

    @property
    def named_heads(self) -> dict[str, Head]:
        return self.heads

    def with_heads(self, heads: Mapping[str, Head]) -> Self:
        return self.model_copy(update={"heads": dict(heads)})
