"""The network for outputs of each pixel, with an encoder of its own or one of torchvision's models."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from tuner.config import Tunable
from tuner.errors import Mistakes, Problem, allowed
from tuner.interfaces import ImageShape, Output
from tuner.models.heads import Normalize, build_head
from tuner.models.pretrained.torchvision import backbone as backbones
from tuner.models.pretrained.torchvision import weights as pretrained
from tuner.models.pretrained.torchvision.base import TorchvisionWeights
from tuner.models.stages import stages_of

_LEVELS = 4
_FEWEST = 3
"""Sizes of features that a model needs to have to be an encoder."""


class UNet(TorchvisionWeights):
    """A U-Net (Ronneberger et al., 2015) with batch normalization: 0.5 million parameters with its own encoder.

    An encoder halves the image and doubles the channels at each level. A decoder goes back up, and gets the encoder's
    features of the same level beside those from below. Outputs of the whole image are computed from the mean of the
    features at the bottom.
    """

    per_pixel = True
    kind: Literal["unet"] = "unet"
    encoder: str | None = None
    """Classification model of torchvision whose features are the encoder, such as resnet18; null for convolutions."""
    width: Annotated[int, Tunable({"choice": [16, 32, 64]})] = Field(16, ge=1, le=2**12)
    """Channels of the first level; each further level of the decoder, and of an encoder of its own, has twice as many
    as the one above it."""
    levels: Literal["auto"] | Annotated[int, Field(ge=1, le=8)] = "auto"
    """Number of levels, of which all but the first halve the image; auto is 4, or all of an encoder of torchvision."""
    dropout: Annotated[float, Tunable({"uniform": [0, 0.5]})] = Field(0.0, ge=0, lt=1)
    """Dropout probability of whole channels before each output layer."""

    def check(self, image: ImageShape, outputs: Mapping[str, Output]) -> None:
        """Raise Mistakes if the model cannot be built for these images.

        Its own encoder takes all images: half of an odd side is rounded up, so that no pixel is left out.
        """
        if not any(output.per_pixel for output in outputs.values()):
            hint = "use kind: resnet_small, cnn, mlp or torchvision"
            raise Mistakes(Problem("the task needs no output of each pixel, which a U-Net is for", "kind", hint=hint))
        problem = self._problem(image)
        if problem:
            raise Mistakes(problem)

    def build(self, image: ImageShape, outputs: Mapping[str, Output]) -> nn.Module:
        """Build a module that maps images (N, C, H, W) in [0, 1] to one output, or a dict of them by head."""
        backbone, channels = self._encoder(image)
        widths = [self.width * 2**level for level in range(len(channels))]
        if self.encoder is not None:  # the bottom has the encoder's channels, and nothing is wider than what it gets
            widths = [
                self.width,
                *(min(of, width) for of, width in zip(channels[1:-1], widths[1:], strict=False)),
                channels[-1],
            ]
        steps = reversed(list(zip(pairwise(widths), channels, strict=False)))
        decoder = nn.ModuleList(_Up(below, beside, width) for (width, below), beside in steps)
        heads = {
            name: _PixelHead(widths[0], output, self.dropout)
            if output.per_pixel
            else _ImageHead(widths[-1], output, self.dropout)
            for name, output in outputs.items()
        }
        trunk = nn.Sequential(OrderedDict[str, nn.Module](normalize=Normalize(image), backbone=backbone))
        module = _Network(trunk, decoder, heads)
        self.freeze_for_good(module)
        return module

    def _encoder(self, image: ImageShape) -> tuple[nn.Module, list[int]]:
        """Build the encoder, and return the channels of what it returns, from the largest to the smallest features."""
        if self.encoder is None:
            levels = _LEVELS if self.levels == "auto" else self.levels
            widths = [self.width * 2**level for level in range(levels)]
            return _Encoder(image.channels, widths), widths
        nodes = self._nodes(image)
        return _extractor(self.of_torchvision, image, nodes), [image.channels, *nodes.values()]

    def _nodes(self, image: ImageShape) -> dict[str, int]:
        """The features of the encoder that are used, as `backbones.pyramid` returns them."""
        found = _pyramid(self.of_torchvision, image)
        return found if self.levels == "auto" else dict(list(found.items())[: self.levels - 1])

    def _problem(self, image: ImageShape) -> Problem | None:
        if self.encoder is None:
            if self.is_pretrained:
                hint = "name an encoder of torchvision, or set weights: none"
                return Problem("an encoder of its own has no pretrained weights", "weights", hint=hint)
            return self.weights_problem() or self.freeze_problem("unet", 0)
        if self.encoder not in backbones.names():
            hint = allowed(self.encoder, backbones.names())
            return Problem(f"torchvision has no classification model {self.encoder!r}", "encoder", hint=hint)
        try:
            found = _pyramid(self.encoder, image)
        except Exception as error:  # of a model that cannot be taken apart, or not take images of this size
            return Problem(f"{self.encoder} cannot be an encoder: {error}", "encoder", hint="try a ResNet")
        if len(found) < _FEWEST - 1:
            message = f"{self.encoder} has no features of {_FEWEST} sizes for images of {image.height}x{image.width}"
            return Problem(
                message, "encoder", hint="ResNet, VGG, DenseNet, EfficientNet, MobileNet, ConvNeXt have them"
            )
        if self.levels != "auto" and not 2 <= self.levels <= len(found) + 1:
            hint = f"allowed: auto, or 2 to {len(found) + 1}"
            return Problem(f"{self.encoder} has {len(found) + 1} levels here", "levels", hint=hint)
        if problem := self.weights_problem():
            return problem
        return self.freeze_problem(self.encoder, _stages(self.encoder, image, tuple(self._nodes(image))))

    @property
    def of_torchvision(self) -> str:
        assert self.encoder is not None, "an encoder of its own has no pretrained weights"
        return self.encoder

    def load(self, module: nn.Module) -> None:
        name = self.of_torchvision
        pretrained.load(module, name, self.weights, pretrained.read(name, self.weights), is_part=True)


@lru_cache(maxsize=256)
def _pyramid(name: str, image: ImageShape) -> dict[str, int]:
    with torch.device("meta"):
        return backbones.pyramid(_backbone(name, image), image)


@lru_cache(maxsize=256)  # every corner of a space is checked, and few change this
def _stages(name: str, image: ImageShape, nodes: tuple[str, ...]) -> int:
    """The number of stages of an encoder of torchvision."""
    with torch.device("meta"):
        return len(stages_of(_extractor(name, image, nodes)))


def _extractor(name: str, image: ImageShape, nodes: Iterable[str]) -> nn.Module:
    """Build an encoder of torchvision that returns the features of some of its nodes."""
    return backbones.extractor(_backbone(name, image), list(nodes))


def _backbone(name: str, image: ImageShape) -> nn.Module:
    """Build a model of torchvision without its classifier and its auxiliary outputs."""
    backbone = backbones.build(name, image)
    backbones.remove_classifier(backbone)
    if backbones.take_auxiliary(backbone):
        backbones.forget_auxiliary(backbone)
    backbones.set_channels(backbone, image.channels)
    return backbone


class _Network(nn.Module):
    """A trunk, a decoder, and heads.

    Args:
        trunk: ``normalize``, and ``backbone``: the features of each level, a list, or a dict of those below the image.
        decoder: For each level but the lowest, from below, what joins the features from below with the encoder's.
        heads: What computes each output from the features of the pixels and from those at the bottom.
    """

    def __init__(self, trunk: nn.Sequential, decoder: nn.ModuleList, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.trunk = trunk
        self.decoder = decoder
        # The suffix is needed because ModuleDict refuses the names of its own attributes, such as `type`.
        self.heads = nn.ModuleDict({f"{name}_head": head for name, head in heads.items()})
        self.names = tuple(heads)

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        normalize, backbone = self.trunk
        normalized = normalize(images)
        found: Any = backbone(normalized)
        *above, bottom = [normalized, *found.values()] if isinstance(found, dict) else found
        features = bottom
        for up, beside in zip(self.decoder, reversed(above), strict=True):
            features = up(features, beside)
        outputs: dict[str, Tensor] = {name: self.heads[f"{name}_head"](features, bottom) for name in self.names}
        return outputs.get("", outputs)


class _Encoder(nn.ModuleList):
    """Maps images to features of each level."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        levels = []
        for level, (inputs, width) in enumerate(pairwise([channels, *widths])):
            pool: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if level else []
            levels.append(nn.Sequential(*pool, *_convolutions(inputs, width)))
        super().__init__(levels)

    def forward(self, features: Tensor) -> list[Tensor]:
        found = []
        for level in self:
            features = level(features)
            found.append(features)
        return found


class _Up(nn.Module):
    """Doubles features from below, and joins them with those of the encoder."""

    def __init__(self, below: int, beside: int, width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(below, width, 1, bias=False)
        self.join = nn.Sequential(*_convolutions(width + beside, width))

    def forward(self, below: Tensor, beside: Tensor) -> Tensor:
        # The convolution of single pixels comes first: it is the same before the resizing, and has a quarter to do.
        resized = functional.interpolate(self.reduce(below), size=beside.shape[-2:], mode="bilinear")
        joined: Tensor = self.join(torch.cat([resized, beside], dim=1))
        return joined


class _PixelHead(nn.Module):
    """Maps the features of pixels (N, `features`, H, W) to an output (N, size, H, W)."""

    def __init__(self, features: int, output: Output, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if output.hidden:
            layers = [nn.Conv2d(features, output.hidden, 1), nn.ReLU(inplace=True)]
        layers += [nn.Dropout2d(dropout), nn.Conv2d(output.hidden or features, output.size, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor, bottom: Tensor) -> Tensor:
        output: Tensor = self.layers(features)
        return output


class _ImageHead(nn.Module):
    """Maps the features at the bottom (N, `features`, h, w) to an output (N, size)."""

    def __init__(self, features: int, output: Output, dropout: float) -> None:
        super().__init__()
        self.layers = build_head(features, output, output.hidden or 0, dropout)

    def forward(self, features: Tensor, bottom: Tensor) -> Tensor:
        output: Tensor = self.layers(bottom.mean(dim=(2, 3)))
        return output


def _convolutions(inputs: int, width: int) -> Sequence[nn.Module]:
    """Two 3x3 convolutions, each with batch normalization and ReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, width):
        convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return layers
