"""The small CNN with one output."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch import nn

from tuner.errors import Mistakes, Problem
from tuner.interfaces import ImageShape, Output
from tuner.models.heads import build_head
from tuner.models.trunk import Trunk


class CNN(Trunk):
    """Two convolutions and two linear layers: 421,642 parameters on 28x28 grey images of 10 classes."""

    kind: Literal["cnn"] = "cnn"
    hidden: int = Field(128, ge=1, le=2**28)
    """Width of the layer between the trunk and the output."""

    def check(self, image: ImageShape, outputs: Mapping[str, Output]) -> None:
        """Raise Mistakes if the model cannot be built for these images and outputs."""
        self.check_image(image)
        if len(outputs) != 1:
            message = f"cnn has one output, but the task has the heads {', '.join(outputs)}"
            raise Mistakes(Problem(message, key="kind", hint="use kind: multitask_cnn"))

    def build(self, image: ImageShape, outputs: Mapping[str, Output]) -> nn.Module:
        """Build a module that maps images (N, C, H, W) in [0, 1] to the output (N, size)."""
        [output] = outputs.values()
        hidden = self.hidden if output.hidden is None else output.hidden
        head = build_head(self.features(image), output, hidden, self.dropout)
        return nn.Sequential(OrderedDict(trunk=self.build_trunk(image), head=head))
