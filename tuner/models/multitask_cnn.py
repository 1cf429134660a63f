"""The small CNN with any number of heads."""

from collections.abc import Mapping
from typing import Literal

from torch import nn

from tuner.errors import Mistakes, Problem
from tuner.interfaces import ImageShape, Output
from tuner.models.heads import with_heads
from tuner.models.trunk import Trunk


class MultitaskCNN(Trunk):
    """The trunk of the small CNN with a head for each output: 453,012 parameters with the two default heads."""

    kind: Literal["multitask_cnn"] = "multitask_cnn"

    def check(self, image: ImageShape, outputs: Mapping[str, Output]) -> None:
        """Raise Mistakes if the model cannot be built for these images and outputs."""
        self.check_image(image)
        if "" in outputs:
            message = "multitask_cnn has named heads, but the task has one output without a name"
            raise Mistakes(Problem(message, key="kind", hint="use kind: cnn, or task: {kind: multitask}"))

    def build(self, image: ImageShape, outputs: Mapping[str, Output]) -> nn.Module:
        """Build a module that maps images (N, C, H, W) in [0, 1] to a dict of outputs (N, size) by head."""
        return with_heads(self.build_trunk(image), self.features(image), outputs, self.dropout)
