"""The convolutional trunk that the CNNs share."""

from collections import OrderedDict
from typing import Annotated

from pydantic import Field
from torch import nn

from tuner.config import Tunable
from tuner.errors import Mistakes, Problem
from tuner.interfaces import ImageShape
from tuner.models.base import Model
from tuner.models.heads import Normalize


class Trunk(Model):
    """Two blocks of 3x3 convolution, 2x2 max-pooling and ReLU."""

    width1: Annotated[int, Tunable({"choice": [16, 32, 64]})] = Field(32, ge=1, le=2**16)
    """Channels after the first convolution."""
    width2: Annotated[int, Tunable({"choice": [32, 64, 128]})] = Field(64, ge=1, le=2**16)
    """Channels after the second convolution."""
    dropout: Annotated[float, Tunable({"uniform": [0, 0.5]})] = Field(0.0, ge=0, lt=1)
    """Dropout probability before each output layer."""

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
