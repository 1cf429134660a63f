"""The layers of a detector: a backbone with features of several scales, and a neck that joins them."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

_MOST = 16
"""Most times the width of the first layer that a stage has."""


def convolution(inputs: int, width: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution with batch normalization and SiLU, which keeps the side, or divides it by the stride."""
    layer = nn.Conv2d(inputs, width, size, stride, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=layer, norm=nn.BatchNorm2d(width), act=nn.SiLU(inplace=True)))


class Split(nn.Module):
    """A stage of which half of the channels pass through blocks, whose results are all joined (Wang et al., 2020).

    Args:
        inputs: Channels of the features.
        width: Channels of the result.
        depth: Number of blocks.
        adds: Whether a block adds its result to its input.
    """

    def __init__(self, inputs: int, width: int, depth: int, *, adds: bool) -> None:
        super().__init__()
        half = width // 2
        self.first = convolution(inputs, 2 * half, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(convolution(half, half), convolution(half, half)) for _ in range(depth)
        )
        self.last = convolution((2 + depth) * half, width, 1)
        self.adds = adds

    def forward(self, features: Tensor) -> Tensor:
        parts = list(self.first(features).chunk(2, dim=1))
        for block in self.blocks:
            found = block(parts[-1])
            parts.append(parts[-1] + found if self.adds else found)
        joined: Tensor = self.last(torch.cat(parts, dim=1))
        return joined


class Pools(nn.Module):
    """Joins features with their maxima over growing squares around each place (He et al., 2015)."""

    def __init__(self, width: int, side: int = 5) -> None:
        super().__init__()
        self.first = convolution(width, width // 2, 1)
        self.last = convolution(width // 2 * 4, width, 1)
        self.side = side

    def forward(self, features: Tensor) -> Tensor:
        parts = [self.first(features)]
        for _ in range(3):
            parts.append(functional.max_pool2d(parts[-1], self.side, stride=1, padding=self.side // 2))
        joined: Tensor = self.last(torch.cat(parts, dim=1))
        return joined


class Pad(nn.Module):
    """Appends zeros on the right and at the bottom, so that a number divides both sides."""

    def __init__(self, divisor: int) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, images: Tensor) -> Tensor:
        down, across = (-side % self.divisor for side in images.shape[-2:])
        return functional.pad(images, (0, across, 0, down)) if down or across else images

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of padded images, by those of the images."""
        return height + -height % self.divisor, width + -width % self.divisor


class Backbone(nn.Module):
    """Maps images to features of several scales, each of half the side of the one before it.

    Args:
        channels: Channels of the images.
        width: Channels of the first scale, of half the side of the images.
        depth: Blocks of each further scale.
        coarsest: Stride of the last scale in pixels, a power of 2.
    """

    def __init__(self, channels: int, width: int, depth: int, coarsest: int) -> None:
        super().__init__()
        widths = [width * min(2**scale, _MOST) for scale in range(coarsest.bit_length() - 1)]
        self.stages = nn.ModuleList([convolution(channels, width, stride=2)])
        for inputs, outputs in pairwise(widths):
            layers: list[nn.Module] = [
                convolution(inputs, outputs, stride=2),
                Split(outputs, outputs, depth, adds=True),
            ]
            if len(self.stages) + 1 == len(widths):
                layers.append(Pools(outputs))
            self.stages.append(nn.Sequential(*layers))
        self.channels = widths

    def forward(self, images: Tensor) -> list[Tensor]:
        found = [images]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found[1:]


class Neck(nn.Module):
    """Joins features of several scales from the coarsest to the finest and back (Liu et al., 2018).

    Args:
        channels: Channels of each scale, from the finest on; those of the result are the same.
        depth: Blocks of each stage.
    """

    def __init__(self, channels: Sequence[int], depth: int) -> None:
        super().__init__()
        pairs = list(pairwise(channels))
        self.up = nn.ModuleList(Split(fine + coarse, fine, depth, adds=False) for fine, coarse in reversed(pairs))
        self.shrink = nn.ModuleList(convolution(fine, fine, stride=2) for fine, _ in pairs)
        self.down = nn.ModuleList(Split(fine + coarse, coarse, depth, adds=False) for fine, coarse in pairs)
        self.channels = list(channels)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        *finer, last = features
        going = [last]
        for up, beside in zip(self.up, reversed(finer), strict=True):
            larger = functional.interpolate(going[-1], size=beside.shape[-2:], mode="nearest")
            going.append(up(torch.cat([larger, beside], dim=1)))
        back = [going.pop()]
        for shrink, down in zip(self.shrink, self.down, strict=True):
            back.append(down(torch.cat([shrink(back[-1]), going.pop()], dim=1)))
        return back
