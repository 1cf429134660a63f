"""The convolutional trunk that the CNNs share, and its heads."""

from collections import OrderedDict

import torch
from pydantic import Field
from torch import Tensor, nn

from tuner.config import Config
from tuner.errors import Mistakes, Problem
from tuner.interfaces import ImageShape, Output


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


class Trunk(Config):
    """Two blocks of 3x3 convolution, 2x2 max-pooling and ReLU."""

    width1: int = Field(32, ge=1, le=2**16)
    """Channels after the first convolution."""
    width2: int = Field(64, ge=1, le=2**16)
    """Channels after the second convolution."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability before each output layer."""

    @property
    def user_code(self) -> list[str]:
        """The user's code that builds the model: none."""
        return []

    def check_image(self, image: ImageShape) -> None:
        """Raise Mistakes if the image is too small for two poolings."""
        if min(image.height, image.width) < 4:
            message = f"the image is {image.height}x{image.width}: too small for two poolings"
            raise Mistakes(Problem(message, hint="it needs at least 4x4 pixels"))

    def features(self, image: ImageShape) -> int:
        """Number of features that the trunk returns per image."""
        return self.width2 * (image.height // 4) * (image.width // 4)

    def build_trunk(self, image: ImageShape) -> nn.Sequential:
        """Build a module that maps images (N, C, H, W) in [0, 1] to features (N, `features`)."""
        # Pooling before the ReLU gives the same result, as both are monotonic, with a quarter of the values.
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
        """Build a module that maps features (N, `features`) to an output (N, size).

        Args:
            features: Number of features per image.
            output: The output.
            hidden: Width of the hidden layer; 0 for none.
        """
        layers = OrderedDict[str, nn.Module]()
        if hidden:
            layers["hidden"] = nn.Linear(features, hidden)
            layers["relu"] = nn.ReLU(inplace=True)
        layers["dropout"] = nn.Dropout(self.dropout)
        layers["output"] = nn.Linear(hidden or features, output.size)
        if output.log_probabilities:
            layers["log_softmax"] = nn.LogSoftmax(dim=1)
        return nn.Sequential(layers)
