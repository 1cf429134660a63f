"""The parts that models share: normalization in front of a trunk, and the heads behind it."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tuner.interfaces import ImageShape, Output, Outputs, WithAuxiliary


class Normalize(nn.Module):
    """Normalizes images in [0, 1] to zero mean and unit variance, as part of the model."""

    mean: Tensor
    std: Tensor

    def __init__(self, image: ImageShape) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(image.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(image.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


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


def build_head(features: int, output: Output, hidden: int, dropout: float) -> nn.Sequential:
    """Build a module that maps features (N, `features`) to an output (N, size).

    Args:
        features: Number of features per image.
        output: The output.
        hidden: Width of the hidden layer; 0 for none.
        dropout: Dropout probability before the output layer.
    """
    layers = OrderedDict[str, nn.Module]()
    if hidden:
        layers["hidden"] = nn.Linear(features, hidden)
        layers["relu"] = nn.ReLU(inplace=True)
    layers["dropout"] = nn.Dropout(dropout)
    layers["output"] = nn.Linear(hidden or features, output.size)
    if output.log_probabilities:
        layers["log_softmax"] = nn.LogSoftmax(dim=1)
    return nn.Sequential(layers)


class AuxiliaryBranches(nn.Module):
    """A trunk and its head, and branches that have outputs of their own in training mode.

    Args:
        trunk: Maps images to features; in training mode to a tuple of them and what each branch begins with.
        head: Maps features to the outputs.
        branches: The branches, which return auxiliary outputs.
        weight: Weight of the loss of each auxiliary output.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module, branches: Sequence[nn.Module], weight: float) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.auxiliary = nn.ModuleList(branches)
        self.weight = weight

    def forward(self, images: Tensor) -> Outputs | WithAuxiliary:
        features = self.trunk(images)
        if isinstance(features, Tensor):
            outputs: Outputs = self.head(features)
            return outputs
        last, *inner = features
        auxiliary = tuple(branch(each) for branch, each in zip(self.auxiliary, inner, strict=True))
        return WithAuxiliary(self.head(last), auxiliary, self.weight)


def all_heads(features: int, outputs: Mapping[str, Output], dropout: float) -> nn.Module:
    """Build a module that maps features (N, `features`) to all outputs, as the model returns them."""
    if "" in outputs:
        return build_head(features, outputs[""], outputs[""].hidden or 0, dropout)
    return with_heads(nn.Identity(), features, outputs, dropout)


def with_heads(trunk: nn.Module, features: int, outputs: Mapping[str, Output], dropout: float) -> nn.Module:
    """Put heads on a trunk: one that returns a tensor if the output has no name, else one for each name.

    A head has a hidden layer only if the task sets its width.

    Args:
        trunk: Maps images (N, C, H, W) to features (N, `features`).
        features: Number of features per image.
        outputs: The outputs that the task needs, by head.
        dropout: Dropout probability before each output layer.
    """
    heads = {name: build_head(features, output, output.hidden or 0, dropout) for name, output in outputs.items()}
    return nn.Sequential(OrderedDict(trunk=trunk, head=heads[""])) if "" in heads else TrunkAndHeads(trunk, heads)
