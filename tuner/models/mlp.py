"""The multilayer perceptron."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from tuner.config import Tunable
from tuner.interfaces import ImageShape, Output
from tuner.models.base import Model
from tuner.models.heads import Normalize, with_heads


class MLP(Model):
    """A multilayer perceptron on the pixels: 269,322 parameters on 28x28 grey images of 10 classes."""

    kind: Literal["mlp"] = "mlp"
    layers: int = Field(2, ge=0, le=1000)
    """Number of hidden layers; 0 for a linear model."""
    width: Annotated[int, Tunable({"logint": [64, 1024]})] = Field(256, ge=1, le=2**16)
    """Width of each hidden layer."""
    dropout: Annotated[float, Tunable({"uniform": [0, 0.5]})] = Field(0.0, ge=0, lt=1)
    """Dropout probability after each hidden layer and, without hidden layers, of the pixels."""

    def check(self, image: ImageShape, outputs: Mapping[str, Output]) -> None:
        """Accept all images and outputs."""

    def build(self, image: ImageShape, outputs: Mapping[str, Output]) -> nn.Module:
        """Build a module that maps images (N, C, H, W) in [0, 1] to one output (N, size), or a dict of them by head."""
        features = image.channels * image.height * image.width
        modules = OrderedDict[str, nn.Module](normalize=Normalize(image), flatten=nn.Flatten())
        for number in range(1, self.layers + 1):
            if number > 1:  # the head has the dropout after the last hidden layer
                modules[f"dropout{number}"] = nn.Dropout(self.dropout)
            modules[f"linear{number}"] = nn.Linear(features, self.width)
            modules[f"relu{number}"] = nn.ReLU(inplace=True)
            features = self.width
        return with_heads(nn.Sequential(modules), features, outputs, self.dropout)
