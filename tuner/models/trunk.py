"""The convolutional trunk that the CNNs share, and the heads that end it."""

from collections import OrderedDict

import torch
from pydantic import Field
from torch import Tensor, nn

from tuner.config import Config
from tuner.errors import Mistakes, Problem
from tuner.interfaces import ImageShape, Output


class Normalize(nn.Module):
    """Images in [0, 1] to zero mean and unit deviation, so that a checkpoint needs no preprocessing beside it."""

    mean: Tensor
    std: Tensor

    def __init__(self, image: ImageShape) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(image.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(image.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class Trunk(Config):
    """Two blocks of 3x3 convolution, 2x2 max-pooling and ReLU."""

    width1: int = Field(32, ge=1, le=2**16)
    """Channels after the first convolution."""
    width2: int = Field(64, ge=1, le=2**16)
    """Channels after the second convolution."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Chance that a feature before an output layer is dropped while training."""

    @property
    def user_code(self) -> list[str]:
        """The code of the user's own that makes it: none."""
        return []

    def check_image(self, image: ImageShape) -> None:
        """Raise Mistakes if two poolings leave nothing of the image."""
        if min(image.height, image.width) < 4:
            message = f"the image is {image.height}x{image.width}: two poolings leave nothing of it"
            raise Mistakes(Problem(message, hint="it needs at least 4x4 pixels"))

    def features(self, image: ImageShape) -> int:
        """Number of features that the trunk puts out."""
        return self.width2 * (image.height // 4) * (image.width // 4)

    def build_trunk(self, image: ImageShape) -> nn.Sequential:
        """Images (N, C, H, W) in [0, 1] to features (N, `features`)."""
        # Pooling before the ReLU is the same function (both are monotonic) on a quarter of the values.
        return nn.Sequential(
            OrderedDict(
                normalize=Normalize(image),
                conv1=nn.Conv2d(image.channels, self.width1, 3, padding=1),
                pool1=nn.MaxPool2d(2),
                relu1=nn.ReLU(inplace=True),
                conv2=nn.Conv2d(self.width1, self.width2, 3, padding=1),
                pool2=nn.MaxPool2d(2),
                relu2=nn.ReLU(inplace=True),
                flatten=nn.Flatten(),
            )
        )

    def build_head(self, features: int, output: Output, hidden: int) -> nn.Sequential:
        """Features (N, `features`) to an output (N, size), through a hidden layer where `hidden` is above 0."""
        layers = OrderedDict[str, nn.Module]()
        if hidden:
            layers["hidden"] = nn.Linear(features, hidden)
            layers["relu"] = nn.ReLU(inplace=True)
        layers["dropout"] = nn.Dropout(self.dropout)
        layers["output"] = nn.Linear(hidden or features, output.size)
        if output.log_probabilities:
            layers["log_softmax"] = nn.LogSoftmax(dim=1)
        return nn.Sequential(layers)
