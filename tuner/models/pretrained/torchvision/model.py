"""The classification, segmentation and detection models of torchvision."""

from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from tuner.config import Tunable
from tuner.errors import Mistakes, Problem, allowed
from tuner.interfaces import ImageShape, Output
from tuner.models.detection.protocol import DETECTIONS
from tuner.models.heads import AuxiliaryBranches, Normalize, all_heads, with_heads
from tuner.models.pretrained.torchvision import backbone as backbones
from tuner.models.pretrained.torchvision import detection as detection
from tuner.models.pretrained.torchvision import of_backbone as of_backbone
from tuner.models.pretrained.torchvision import segmentation as segmentation
from tuner.models.pretrained.torchvision import weights as pretrained
from tuner.models.pretrained.torchvision.base import TorchvisionWeights
from tuner.models.pretrained.weight_files import is_path
from tuner.models.stages import stages_of

_SMALL = 64
"""Height and width, in pixels, up to which ``stem: auto`` is small."""
_OF_DETECTORS = ("detections", "score", "overlap", "anchors", "regions")
_Size = Annotated[float, Field(ge=2, le=2**16)]


class TorchvisionModel(TorchvisionWeights):
    """A model of torchvision that classifies, segments or detects, fitted to the images and the outputs of the task."""

    per_pixel = True
    boxes = True
    masks = True
    kind: Literal["torchvision"] = "torchvision"
    name: str = "resnet18"
    """Name in torchvision, such as resnet50, efficientnet_b0, convnext_tiny, vit_b_16 or swin_t; for masks
    fcn_resnet50, deeplabv3_resnet50, lraspp_mobilenet_v3_large and their likes; for objects fasterrcnn_resnet50_fpn_v2,
    retinanet_resnet50_fpn_v2, fcos_resnet50_fpn, ssd300_vgg16, ssdlite320_mobilenet_v3_large and their likes, with
    masks maskrcnn_resnet50_fpn and maskrcnn_resnet50_fpn_v2."""
    stem: Literal["auto", "original", "small"] = "auto"
    """First layers of a ResNet, DenseNet or GoogLeNet: original, or small (a 3x3 convolution without stride, and no
    pooling), with which images of few pixels keep their size; auto is small for images up to 64 pixels if there are no
    pretrained weights."""
    auxiliary: Literal["auto"] | bool = "auto"
    """Whether Inception v3, GoogLeNet, FCN and DeepLab learn from the losses of their auxiliary outputs, too, which are
    new and have weight 0.4, 0.3 and 0.5; auto does so if the images are large enough for them and the backbone is
    trained."""
    dropout: Annotated[float | None, Tunable({"uniform": [0, 0.5]})] = Field(None, ge=0, lt=1)
    """Dropout probability where the model has dropout, else before each output layer; null for torchvision's own."""
    drop_path: Annotated[float | None, Tunable({"uniform": [0, 0.2]})] = Field(None, ge=0, lt=1)
    """Probability that a training image skips the last block (stochastic depth), of ConvNeXt, EfficientNet, MaxViT and
    Swin; it grows linearly with the depth. Null for torchvision's own."""
    detections: int | None = Field(None, ge=1, le=1000)
    """Most objects that a detector finds in an image; null for 100."""
    score: float | None = Field(None, ge=0, lt=1)
    """Least score of an object that a detector finds; null for torchvision's own, 0.001 to 0.2."""
    overlap: float | None = Field(None, gt=0, le=1)
    """Intersection over union above which a detector drops the less certain of two objects of a class; null for
    torchvision's own, 0.45 to 0.6."""
    anchors: tuple[_Size, _Size, _Size, _Size, _Size] | None = None
    """Five sizes, in pixels, of the boxes from which Faster R-CNN, Mask R-CNN and RetinaNet begin to look; null for
    torchvision's own, 32 to 512, which are for images of 800 pixels: without weights of COCO they are scaled to the
    shorter side of the images, down to a quarter."""
    regions: Annotated[int | None, Tunable({"choice": [128, 256, 512]})] = Field(None, ge=4, le=4096)
    """Regions of an image that Faster and Mask R-CNN learn in a step, of which up to a quarter are of objects: fewer
    take less time; null for torchvision's own, 512."""

    def check(self, image: ImageShape, outputs: Mapping[str, Output]) -> None:
        """Raise Mistakes if the model cannot be built for these images and outputs."""
        # The probabilities do not matter to the check, and a search over them would repeat it.
        drop_path = None if self.drop_path is None else 0.0
        if self._is_detection:
            if problem := detection.why_not_for(self.name, outputs) or self._detection_problem(image, outputs):
                raise Mistakes(problem)
            return
        if key := next((key for key in _OF_DETECTORS if getattr(self, key) is not None), None):
            raise Mistakes(Problem(f"{self.name} has none", key, hint="leave it out: it is for detectors"))
        if self._is_segmentation:
            if problem := segmentation.why_not_for(self.name, outputs) or self._segmentation_problem(image, outputs):
                raise Mistakes(problem)
            return
        if problem := _form_problem(self.name, outputs):
            raise Mistakes(problem)
        problem = _problem(self.model_copy(update={"dropout": None, "drop_path": drop_path}), image)
        if problem:
            raise Mistakes(problem)

    def build(self, image: ImageShape, outputs: Mapping[str, Output]) -> nn.Module:
        """Build a module that maps images (N, C, H, W) in [0, 1] to one output (N, size), or a dict of them by head."""
        if self._is_detection:
            detector = detection.build(self.name, image, outputs, self._settings)
            self.freeze_for_good(detector)
            return detector
        if self._is_segmentation:
            auxiliary = segmentation.has_auxiliary(self.name) and self.auxiliary in (True, "auto") and not self._is_kept
            whole = segmentation.build(self.name, image, outputs, auxiliary=auxiliary)
            if self.dropout is not None:
                backbones.set_dropout(whole, self.dropout)
            self.freeze_for_good(whole)
            return whole
        backbone, features, branches = self.build_backbone(image)
        head_dropout = 0.0
        if self.dropout is not None and not backbones.set_dropout(backbone, self.dropout):
            head_dropout = self.dropout
        if self.drop_path is not None:
            backbones.set_drop_path(backbone, self.drop_path)
        layers = OrderedDict[str, nn.Module](normalize=Normalize(image), backbone=backbone)
        trunk = nn.Sequential(layers)
        if branches:
            heads = [nn.Sequential(each, all_heads(inner, outputs, 0.0)) for each, inner in branches]
            head = all_heads(features, outputs, head_dropout)
            module: nn.Module = AuxiliaryBranches(trunk, head, heads, backbones.auxiliary_weight(backbone))
        else:
            module = with_heads(trunk, features, outputs, head_dropout)
        self.freeze_for_good(module)
        return module

    @property
    def of_torchvision(self) -> str:
        return of_backbone.backbone_of(self.name) if self._begins_with_backbone else self.name

    @property
    def weight_names(self) -> tuple[str, ...]:
        more = of_backbone.choices(self.name) if self._is_segmentation or self._is_detection else ()
        return (*pretrained.choices(self.name), *more)

    @property
    def _begins_with_backbone(self) -> bool:
        """Whether the weights are those of the classification model that is its backbone."""
        is_part = self._is_segmentation or self._is_detection
        return is_part and self.weights in of_backbone.choices(self.name)

    def use_of_weights(self, outputs: Mapping[str, Output]) -> str:
        if self._begins_with_backbone:
            told = f"{self.weights} are weights of {self.of_torchvision}"
            return f"{told}: all layers of {self.name} behind its backbone begin with new weights"
        if self._is_detection and not is_path(self.weights):
            return detection.use_of(self.name, self.weights, next(iter(outputs.values())))
        return ""

    def load(self, module: nn.Module) -> None:
        if self._begins_with_backbone:
            of_backbone.load(module.get_submodule("trunk"), self.name, self.weights)
            return
        if self._is_segmentation or self._is_detection:
            (segmentation if self._is_segmentation else detection).load(module, self.name, self.weights)
            return
        pretrained.load(module, self.name, self.weights, pretrained.read(self.name, self.weights))

    def name_problem(self) -> Problem | None:
        if problem := super().name_problem():
            return problem
        if self.stem == "small":
            hint = "set stem: original, or weights: none"
            return Problem("torchvision's weights are those of the original stem", "stem", hint=hint)
        return None

    def build_backbone(self, image: ImageShape) -> tuple[nn.Module, int, list[tuple[nn.Module, int]]]:
        """Build the model without its classifier.

        Returns:
            A module that maps normalized images (N, C, H, W) to features (N, F), and F; and the branches of which it
            learns from the auxiliary outputs, as `backbones.take_auxiliary` returns them.
        """
        backbone = backbones.build(self.name, image)
        features = backbones.remove_classifier(backbone)
        branches = backbones.take_auxiliary(backbone)
        if branches and not self._learns_from_auxiliary(image):
            backbones.forget_auxiliary(backbone)
            branches = []
        is_small = self.weights == "none" and max(image.height, image.width) <= _SMALL
        if self.stem == "small" or (self.stem == "auto" and is_small):
            backbones.shrink_stem(backbone)
        backbones.set_channels(backbone, image.channels)
        return backbone, features, branches

    def _learns_from_auxiliary(self, image: ImageShape) -> bool:
        if self.auxiliary != "auto":
            return self.auxiliary
        return not self._is_kept and backbones.has_room_for_auxiliary(self.name, image)

    @property
    def _is_kept(self) -> bool:
        """Whether the backbone is never trained."""
        return self.freeze == "backbone" and self.thaw is None

    @property
    def _is_segmentation(self) -> bool:
        return self.name in segmentation.names()

    @property
    def _is_detection(self) -> bool:
        return self.name in detection.names()

    @property
    def _settings(self) -> detection.Settings:
        most = self.detections or DETECTIONS
        return detection.Settings(most, self.score, self.overlap, self.anchors, self.regions, self.weights)

    def _detection_problem(self, image: ImageShape, outputs: Mapping[str, Output]) -> Problem | None:
        has_none = {
            "stem": self.stem == "small",
            "auxiliary": self.auxiliary is True,
            "dropout": self.dropout is not None,
            "drop_path": self.drop_path is not None,
            "anchors": self.anchors is not None and not detection.has_anchors(self.name),
            "regions": self.regions is not None and not detection.has_regions(self.name),
        }
        if key := next((key for key, is_set in has_none.items() if is_set), None):
            return Problem(f"{self.name} has none", key, hint="leave it out")
        if problem := self.weights_problem():
            return problem
        stages = detection.look(self.name, image, next(iter(outputs.values())), self.weights)
        if isinstance(stages, Problem):
            return stages
        if self._begins_with_backbone and (
            problem := of_backbone.freeze_problem(self.name, self.weights, self.freeze, stages)
        ):
            return problem
        return self.freeze_problem(self.name, len(stages))

    def _segmentation_problem(self, image: ImageShape, outputs: Mapping[str, Output]) -> Problem | None:
        if self.stem == "small" or self.drop_path is not None:
            key = "stem" if self.stem == "small" else "drop_path"
            return Problem(f"{self.name} has none", key, hint="leave it out")
        if self.auxiliary is True and not segmentation.has_auxiliary(self.name):
            return Problem(f"{self.name} has no auxiliary output", "auxiliary", hint="set auxiliary: auto")
        if problem := self.weights_problem():
            return problem
        [output] = outputs.values()
        stages = segmentation.look(self.name, image, output)
        if isinstance(stages, Problem):
            return stages
        return self.freeze_problem(self.name, len(stages))


def _form_problem(name: str, outputs: Mapping[str, Output]) -> Problem | None:
    """Why a model that does not detect or segment cannot have these outputs; None if it can."""
    masks = any(output.masks for output in outputs.values())
    able = f"allowed: {', '.join(detection.names_for(masks=masks))}, or kind: yolo"
    if detection.finds_keypoints(name):
        return Problem(f"{name} finds keypoints of objects, which is not supported", "name", hint=able)
    found_by = {
        "boxes": ("detection", detection.names_for(masks=masks)),
        "per_pixel": ("segmentation", segmentation.names()),
    }
    for form, (kind, known) in found_by.items():
        if name not in backbones.names() and any(getattr(output, form) for output in outputs.values()):
            return Problem(f"torchvision has no {kind} model {name!r}", "name", hint=allowed(name, known))
    if any(output.boxes for output in outputs.values()):
        needed = "masks" if masks else "boxes"
        message = f"{name} has outputs of the whole image, and the task needs {needed} of objects"
        return Problem(message, "name", hint=able)
    if any(output.per_pixel for output in outputs.values()):
        hint = f"allowed: {', '.join(segmentation.names())}, or kind: unet"
        message = f"{name} has outputs of the whole image, and the task needs one for each pixel"
        return Problem(message, "name", hint=hint)
    return None


@lru_cache(maxsize=4096)  # every corner of a space is checked
def _problem(model: TorchvisionModel, image: ImageShape) -> Problem | None:
    """Build the backbone without memory for weights, and run it on two images of which only the shape exists."""
    if model.name not in backbones.names():
        hint = allowed(model.name, backbones.names())
        return Problem(f"torchvision has no classification model {model.name!r}", "name", hint=hint)
    if problem := model.weights_problem():
        return problem
    size = f"{image.channels}x{image.height}x{image.width}"
    try:
        with torch.device("meta"), torch.inference_mode():
            backbone, *_ = model.build_backbone(image)
            backbone.eval()(torch.zeros(2, image.channels, image.height, image.width))
    except Exception as error:  # torchvision's models check sizes in many ways
        return Problem(f"{model.name} cannot take images {size}: {error}", "name", hint=backbones.size_hint(model.name))
    if model.auxiliary is True and not backbones.has_room_for_auxiliary(model.name, image):
        hint = "Inception v3 and GoogLeNet have them, for images that are large enough; set auxiliary: auto"
        return Problem(f"{model.name} has no auxiliary outputs for images {size}", "auxiliary", hint=hint)
    if problem := model.freeze_problem(model.name, len(stages_of(backbone))):
        return problem
    if model.stem == "small" and not backbones.has_large_stem(backbone):
        hint = "stem: small is for ResNet, DenseNet and GoogLeNet; others need stem: auto or original"
        return Problem(f"{model.name} has no stem that can be made small", "stem", hint=hint)
    if model.drop_path is not None and not backbones.set_drop_path(backbone, model.drop_path):
        hint = "ConvNeXt, EfficientNet, MaxViT and Swin have it; others need drop_path: null"
        return Problem(f"{model.name} has no stochastic depth", "drop_path", hint=hint)
    return None
