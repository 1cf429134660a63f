"""The residual network for small images."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from tuner.config import Tunable
from tuner.errors import Mistakes, Problem
from tuner.interfaces import ImageShape, Output
from tuner.models.base import Model
from tuner.models.heads import Normalize, with_heads


class ResNetSmall(Model):
    """A residual network for small images, such as CIFAR's (He et al., 2016, section 4.2): 1.2 million parameters.

    The first layer is a 3x3 convolution without pooling. Each stage but the first halves the image and doubles the
    channels. The ResNet-20 of the paper has ``width: 16, blocks: 3``; a ResNet-18 with ``width: 64, stages: 4`` is the
    one that is usual on CIFAR.
    """

    kind: Literal["resnet_small"] = "resnet_small"
    width: Annotated[int, Tunable({"choice": [16, 32, 64]})] = Field(32, ge=1, le=2**12)
    """Channels of the first stage; each further stage has twice as many as the one before it."""
    blocks: int = Field(2, ge=1, le=200)
    """Number of blocks per stage, of two convolutions each: the network has 2 * stages * blocks + 2 layers."""
    stages: int = Field(3, ge=1, le=6)
    """Number of stages."""
    dropout: Annotated[float, Tunable({"uniform": [0, 0.5]})] = Field(0.0, ge=0, lt=1)
    """Dropout probability before each output layer."""
    drop_path: Annotated[float, Tunable({"uniform": [0, 0.2]})] = Field(0.0, ge=0, lt=1)
    """Probability that a training image skips the last block (stochastic depth); it grows linearly with the depth."""

    def check(self, image: ImageShape, outputs: Mapping[str, Output]) -> None:
        """Raise Mistakes if the model cannot be built for these images and outputs."""
        least = 2 ** (self.stages - 1)
        if min(image.height, image.width) < least:
            message = f"the image is {image.height}x{image.width}: too small for {self.stages} stages"
            raise Mistakes(Problem(message, key="stages", hint=f"they need at least {least}x{least} pixels"))

    def build(self, image: ImageShape, outputs: Mapping[str, Output]) -> nn.Module:
        """Build a module that maps images (N, C, H, W) in [0, 1] to one output (N, size), or a dict of them by head."""
        modules = OrderedDict[str, nn.Module](
            normalize=Normalize(image),
            conv=_convolution(image.channels, self.width),
            norm=nn.BatchNorm2d(self.width),
            relu=nn.ReLU(inplace=True),
        )
        channels, last = self.width, max(self.stages * self.blocks - 1, 1)
        for stage in range(self.stages):
            blocks = []
            for number in range(self.blocks):
                skipped = self.drop_path * (stage * self.blocks + number) / last
                width, stride = self.width * 2**stage, 2 if stage and not number else 1
                blocks.append(_Block(channels, width, stride, skipped))
                channels = width
            modules[f"stage{stage + 1}"] = nn.Sequential(*blocks)
        modules |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
        return with_heads(nn.Sequential(modules), channels, outputs, self.dropout)


class _Block(nn.Module):
    """Two 3x3 convolutions whose result is added to the input."""

    def __init__(self, inputs: int, width: int, stride: int, drop_path: float) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, width, stride)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width)
        self.norm2 = nn.BatchNorm2d(width)
        # norm2.weight begins with 1. With 0 (Goyal et al., 2017, section 5.1) a block passes its input on at first, and
        # short trainings lose: a ResNet-20 had 0.35 instead of 0.45 after 2 epochs of 9,000 images.
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != width:
            convolution = nn.Conv2d(inputs, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(OrderedDict(conv=convolution, norm=nn.BatchNorm2d(width)))
        self.drop_path = drop_path

    def forward(self, images: Tensor) -> Tensor:
        residual = functional.relu(self.norm1(self.conv1(images)), inplace=True)
        residual = self.norm2(self.conv2(residual))
        if self.training and self.drop_path:
            kept = 1 - self.drop_path
            residual = residual * residual.new_empty((len(residual), 1, 1, 1)).bernoulli_(kept).div_(kept)
        return functional.relu(self.shortcut(images) + residual, inplace=True)


def _convolution(inputs: int, width: int, stride: int = 1) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution
