"""A single-stage detector without anchor boxes, of the YOLO family."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from tuner.config import Tunable
from tuner.errors import Mistakes, Problem
from tuner.interfaces import ImageShape, Output, Targets
from tuner.models.base import Model
from tuner.models.detection.layers import Backbone, Neck, Pad, convolution
from tuner.models.detection.mask_head import MaskHead
from tuner.models.detection.selection import Selection
from tuner.models.detection.yolo_head import BoxHead, Gains
from tuner.models.heads import Normalize, build_head

_SCALES = 3
_SMALL = 160
"""Longest side in pixels of the images whose objects need features of a quarter of the side."""


class Yolo(Model):
    """A compact detector of the YOLO family: features of three scales, one prediction at each of their places.

    A place predicts the classes and, for each edge of a box, a distribution of its distance. In training, boxes are
    assigned to the places that predict them best (Feng et al., 2021), and the distances are learnt as distributions (Li
    et al., 2020). Objects get masks in tasks that ask for them. Heads of the whole image get the mean of the
    features of the coarsest scale, those of each pixel the features of the finest one.
    """

    per_pixel = True
    boxes = True
    masks = True
    kind: Literal["yolo"] = "yolo"
    width: Annotated[int, Tunable({"choice": [16, 24, 32]})] = Field(16, ge=4, le=2**10)
    """Channels of the first layer; each further scale has twice as many, up to 16 times."""
    depth: Annotated[int, Tunable({"choice": [1, 2]})] = Field(1, ge=1, le=100)
    """Blocks of two convolutions in each stage."""
    stride: Literal["auto", 4, 8] = "auto"
    """Pixels between the places of the finest of the three scales; auto is 4 for images of up to 160 pixels, else 8."""
    class_gain: Annotated[float, Tunable({"loguniform": [0.25, 2]})] = Field(0.5, ge=0, le=100)
    """Weight of the loss of the classes."""
    box_gain: Annotated[float, Tunable({"loguniform": [2.5, 15]})] = Field(7.5, ge=0, le=100)
    """Weight of the loss of the overlap of boxes."""
    distance_gain: float = Field(1.5, ge=0, le=100)
    """Weight of the loss of the distributions of distances."""
    mask_gain: Annotated[float, Tunable({"loguniform": [0.5, 5]})] = Field(2.5, ge=0, le=100)
    """Weight of the loss of the masks, in tasks that have some."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability before the output layer of heads that have no boxes."""
    detections: int = Field(100, ge=1, le=10_000)
    """Most objects that are found in an image."""
    score: float = Field(0.001, ge=0, lt=1)
    """Least score of an object that is found. Average precision gains from many of low scores."""
    overlap: float = Field(0.65, gt=0, le=1)
    """Intersection over union above which the less certain of two objects of one class is dropped."""

    def check(self, image: ImageShape, outputs: Mapping[str, Output]) -> None:
        """Raise Mistakes if the model cannot be built for these images and outputs."""
        if not any(output.boxes for output in outputs.values()):
            hint = "use task: {kind: detection}, or another model"
            raise Mistakes(Problem("the task needs no boxes, which a detector is for", "kind", hint=hint))
        if self.mask_gain != type(self)().mask_gain and not any(output.masks for output in outputs.values()):
            hint = "leave it out; task: {kind: instance_segmentation} has masks"
            raise Mistakes(Problem("the task needs no masks, so this has no effect", "mask_gain", hint=hint))

    def build(self, image: ImageShape, outputs: Mapping[str, Output]) -> nn.Module:
        """Build a module that maps images (N, C, H, W) in [0, 1] to one output, or a dict of them by head."""
        strides = self._strides(image)
        backbone = Backbone(image.channels, self.width, self.depth, strides[-1])
        neck = Neck(backbone.channels[-_SCALES:], self.depth)
        selection = Selection(self.detections, self.score, self.overlap)
        gains = Gains(self.class_gain, self.box_gain, self.distance_gain, self.mask_gain)
        size = (image.height, image.width)
        heads: dict[str, nn.Module] = {}
        for name, output in outputs.items():
            if output.masks:
                most = self.detections
                heads[name] = MaskHead(neck.channels, output.size, strides, size, gains, selection, most)
            elif output.boxes:
                heads[name] = BoxHead(neck.channels, output.size, strides, size, gains, selection)
            elif output.per_pixel:
                heads[name] = _PixelHead(neck.channels[0], output, size, strides[0])
            else:
                heads[name] = _ImageHead(build_head(neck.channels[-1], output, output.hidden or 0, self.dropout))
        trunk = nn.Sequential(
            OrderedDict[str, nn.Module](normalize=Normalize(image), pad=Pad(strides[-1]), backbone=backbone)
        )
        return _Network(trunk, neck, heads)

    def _strides(self, image: ImageShape) -> list[int]:
        finest = self.stride
        if finest == "auto":
            finest = 4 if max(image.height, image.width) <= _SMALL else 8
        return [finest * 2**scale for scale in range(_SCALES)]


class _Network(nn.Module):
    """A trunk, a neck, and heads.

    Args:
        trunk: Maps images to features of several scales.
        neck: Joins those of the three coarsest scales.
        heads: What computes each output from the features.
    """

    def __init__(self, trunk: nn.Module, neck: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.trunk = trunk
        self.neck = neck
        # The suffix is needed because ModuleDict refuses the names of its own attributes, such as `type`.
        self.heads = nn.ModuleDict({f"{name}_head": head for name, head in heads.items()})
        self.names = tuple(heads)

    def forward(self, images: Tensor, targets: Targets | None = None) -> Tensor | dict[str, Tensor]:
        features = self.neck(self.trunk(images)[-_SCALES:])
        boxes = targets or {}
        outputs: dict[str, Tensor] = {
            name: self.heads[f"{name}_head"](features, boxes.get(name)) for name in self.names
        }
        return outputs.get("", outputs)


class _PixelHead(nn.Module):
    """Maps the features of the finest scale to an output of each pixel (N, size, H, W)."""

    def __init__(self, features: int, output: Output, size: tuple[int, int], stride: int) -> None:
        super().__init__()
        width = output.hidden or features
        self.layers = nn.Sequential(
            convolution(features, width),
            nn.Conv2d(width, output.size, 1),
            nn.Upsample(scale_factor=stride, mode="bilinear"),
        )
        self.size = size

    def forward(self, features: list[Tensor], boxes: Tensor | None) -> Tensor:
        height, width = self.size
        output: Tensor = self.layers(features[0])
        return output[..., :height, :width]


class _ImageHead(nn.Module):
    """Maps the features of the coarsest scale to an output (N, size)."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, features: list[Tensor], boxes: Tensor | None) -> Tensor:
        output: Tensor = self.layers(features[-1].mean(dim=(2, 3)))
        return output
