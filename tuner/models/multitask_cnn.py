"""The small CNN with any number of heads."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from tuner.errors import Mistakes, Problem
from tuner.interfaces import ImageShape, Output
from tuner.models.trunk import Trunk


class TrunkAndHeads(nn.Module):
    """A trunk whose features are the input of every head."""

    def __init__(self, trunk: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.trunk = trunk
        # The suffix is needed because ModuleDict refuses the names of its own attributes, such as `type`.
        self.heads = nn.ModuleDict({f"{name}_head": head for name, head in heads.items()})
        self.names = tuple(heads)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.trunk(images)
        return {name: self.heads[f"{name}_head"](features) for name in self.names}


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
        features = self.features(image)
        heads = {name: self.build_head(features, output, output.hidden or 0) for name, output in outputs.items()}
        return TrunkAndHeads(self.build_trunk(image), heads)
