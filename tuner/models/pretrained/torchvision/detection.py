"""The detectors of torchvision by name: boxes of objects with their classes, and masks.

torchvision is imported where it is used, because importing it takes seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from tuner.errors import Problem, UserError
from tuner.formatting import counted, some
from tuner.interfaces import ImageShape, Output
from tuner.models.detection.protocol import BACKGROUND, DETECTIONS
from tuner.models.pretrained import class_rows
from tuner.models.pretrained.torchvision import backbone as backbones
from tuner.models.pretrained.torchvision import of_backbone as of_backbone
from tuner.models.pretrained.torchvision import weights as pretrained
from tuner.models.pretrained.torchvision.detector import wrapped
from tuner.models.pretrained.weight_files import KEY, OF_ANOTHER_MODEL, fit_channels
from tuner.models.stages import Stages, stages_of

_KEYPOINTS = "keypointrcnn_"
"""What the names of those begin with that find keypoints."""
_MASKS = "maskrcnn_"
"""What the names of those begin with that find masks."""
_SIDE = 800
"""The shorter side, in pixels, of the images for which torchvision's anchors are made."""
_ANCHORS = (32, 64, 128, 256, 512)
"""Their sizes."""
_LEAST_SCALE = 0.25
"""What they are multiplied by at the least: they are not to be smaller than two pixels of the features."""
_LAST_LAYERS = (
    "roi_heads.box_predictor.",
    "roi_heads.mask_predictor.mask_fcn_logits.",
    "head.classification_head.",
)
"""What the names of the layers begin with whose shape depends on the number of classes."""
_WITHOUT_EPSILON = ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn")
"""Those whose weights of torchvision were trained with frozen batch normalization of another epsilon, 0."""


@dataclass(frozen=True)
class Settings:
    """What can be set of a detector.

    Args:
        detections: The most objects that are found in an image.
        score: The least score of an object; None for torchvision's own.
        overlap: Intersection over union above which the less certain of two objects of a class is dropped; None for
            torchvision's own.
        anchors: Sizes of the anchors in pixels; None for torchvision's own, which are fitted to the images if there are
            no pretrained weights.
        regions: Regions of an image that are learnt at once; None for torchvision's own.
        weights: Pretrained weights, or none.
    """

    detections: int
    score: float | None
    overlap: float | None
    anchors: tuple[float, ...] | None
    regions: int | None
    weights: str


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """The names of torchvision's models that find boxes, or boxes and masks."""
    from torchvision import models

    return tuple(name for name in models.list_models(module=models.detection) if not finds_keypoints(name))


def names_for(*, masks: bool) -> tuple[str, ...]:
    """The names of those for objects with masks, or for boxes alone."""
    return tuple(name for name in names() if finds_masks(name) == masks)


def finds_keypoints(name: str) -> bool:
    """Whether a model of torchvision finds keypoints beside boxes."""
    return name.startswith(_KEYPOINTS)


def finds_masks(name: str) -> bool:
    """Whether a model of torchvision finds masks beside boxes."""
    return name.startswith(_MASKS)


def has_regions(name: str) -> bool:
    """Whether a model finds regions first, and then what is in them."""
    return "rcnn_" in name


def has_anchors(name: str) -> bool:
    """Whether the sizes of a model's anchors are in pixels; SSD's are shares of the image, and FCOS has none."""
    return has_regions(name) or name.startswith("retinanet_")


def why_not_for(name: str, outputs: Mapping[str, Output]) -> Problem | None:
    """Why a model cannot have these outputs; None if it can."""
    finds = finds_masks(name)
    if len(outputs) != 1 or not all(output.boxes for output in outputs.values()):
        kind = "instance_segmentation" if finds else "detection"
        message = f"{name} finds objects and has no other output, and the task needs others"
        return Problem(message, "name", hint=f"use task: {{kind: {kind}}}, or another model")
    [output] = outputs.values()
    if output.masks == finds:
        return None
    found, needed = ("objects with masks", "boxes alone") if finds else ("boxes", "masks of objects")
    hint = f"allowed: {', '.join(names_for(masks=output.masks))}, or kind: yolo"
    return Problem(f"{name} finds {found}, and the task needs {needed}", "name", hint=hint)


def build(name: str, image: ImageShape, outputs: Mapping[str, Output], settings: Settings) -> nn.Module:
    """Build a module that maps images (N, C, H, W) in [0, 1] to losses and detections, as `Detector` says."""
    from torchvision import models

    [(head, output)] = outputs.items()
    first = _first_label(name)
    model: Any = models.get_model(name, weights=None, weights_backbone=None, num_classes=output.size + first)
    _set_anchors(model, name, image, settings)
    last = getattr(model, "roi_heads", model)
    last.detections_per_img = settings.detections
    last.score_thresh = last.score_thresh if settings.score is None else settings.score
    last.nms_thresh = last.nms_thresh if settings.overlap is None else settings.overlap
    if settings.regions is not None:
        last.fg_bg_sampler.batch_size_per_image = settings.regions
    backbone = model.backbone
    backbones.set_channels(backbone, image.channels)
    if settings.weights != "none" and _has_frozen_normalization(name):
        is_torchvision_s = settings.weights in pretrained.choices(name)
        _freeze_normalization(backbone, 0.0 if is_torchvision_s and name in _WITHOUT_EPSILON else 1e-5)
    return wrapped(model, image, head, output, first)


def _first_label(name: str) -> int:
    """The label of the first class: RetinaNet and FCOS have a score for each class, and none for the background."""
    return 0 if name.startswith(("retinanet_", "fcos_")) else BACKGROUND


def _has_frozen_normalization(name: str) -> bool:
    """Whether torchvision trains a model from pretrained weights with frozen batch normalization.

    It does so for those with a feature pyramid, but for the second version of each.
    """
    return "_fpn" in name and not name.endswith("_v2")


def _freeze_normalization(module: nn.Module, epsilon: float) -> None:
    from torchvision.ops import FrozenBatchNorm2d

    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.BatchNorm2d):
            module.set_submodule(name, FrozenBatchNorm2d(layer.num_features, eps=epsilon))


def _set_anchors(model: Any, name: str, image: ImageShape, settings: Settings) -> None:
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    if not has_anchors(name):
        if name.startswith("ssd300") and (image.height, image.width) != (300, 300):
            model.anchor_generator.steps = None  # those of other sizes follow from the features
        return
    sizes = settings.anchors
    if sizes is None:
        # The layers behind pretrained weights have learnt which sizes the anchors have.
        is_new = settings.weights in ("none", *of_backbone.choices(name))
        scale = max(min(image.height, image.width) / _SIDE, _LEAST_SCALE) if is_new else 1.0
        sizes = tuple(scale * size for size in _ANCHORS)
    owner = getattr(model, "rpn", model)
    generator = owner.anchor_generator
    new = tuple(tuple(_resized(size, sizes) for size in level) for level in generator.sizes)
    owner.anchor_generator = AnchorGenerator(new, generator.aspect_ratios)


def _resized(size: int, sizes: tuple[float, ...]) -> float:
    """An anchor of another size, given one of torchvision's, which is one of `_ANCHORS` or larger by up to 2^(2/3)."""
    index = max(index for index, each in enumerate(_ANCHORS) if each <= size)
    return sizes[index] * size / _ANCHORS[index]


def use_of(name: str, weights: str, output: Output) -> str:
    """What of weights a detector begins with, as a message for the user; empty if torchvision does not name classes."""
    known = pretrained.categories(name, weights)
    if not known or not output.classes:
        return ""
    if lacking := class_rows.unknown(output.classes, known):
        return f"the last layers of {name} begin with new weights: those of {weights} have no {some(lacking, count=3)}"
    count = counted(output.size, "class", "classes")
    return f"the last layers of {name} begin with the weights of {weights} for the {count} of the data"


def _fitted(key: str, weights: Tensor, own: Tensor, module: Any, known: Sequence[str]) -> Tensor:
    """The weights with which a last layer begins: of the weights that were read, or its own, which are new.

    Args:
        key: Its name.
        weights: What was read.
        own: Its own.
        module: The detector.
        known: The names of the classes of what was read, by label; empty if they are unknown.
    """
    classes = module.output.classes
    if not (known and classes) or not weights.dim() or len(weights) % len(known):
        return weights if weights.shape == own.shape else own
    labels = class_rows.labels_of(classes, known)
    if labels is None:
        return own
    return class_rows.rows_of(weights, [0] * module.first + labels, len(known), by_class=key.startswith("roi_heads."))


def load(module: nn.Module, name: str, weights: str) -> None:
    """Load weights into what `build` has returned.

    The last layers get the rows of the data's classes where torchvision names those of its weights. Else they keep
    their new weights if the number of classes differs.

    Raises:
        UserError: They are not weights of this model.
    """
    state = {key.removeprefix("module."): value for key, value in pretrained.read(name, weights).items()}
    trunk: Any = module.get_submodule("trunk")
    detector: Any = module.get_submodule("detector")
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (detector.transform.mean, detector.transform.std))
    if any(key.startswith("trunk.") for key in state):  # from a checkpoint of `tuner`
        mean, std = (state.pop(f"trunk.normalize.{each}", value) for each, value in (("mean", mean), ("std", std)))
        state = {key.removeprefix("trunk.").removeprefix("detector."): value for key, value in state.items()}
    backbone = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    others = {key: value for key, value in state.items() if not key.startswith("backbone.")}
    pretrained.fit_stem(trunk.backbone, backbone)
    last = {
        key: value for key, value in detector.state_dict().items() if key.startswith(_LAST_LAYERS) and key in others
    }
    known = pretrained.categories(name, weights)
    others |= {key: _fitted(key, others[key], own, module, known) for key, own in last.items()}
    problems = pretrained.load_part(trunk.backbone, backbone) + pretrained.load_part(detector, others)
    if problems:
        message = f"these are not weights of {name}: {'; '.join(problems)}"
        where = str(pretrained.location(name, weights))
        raise UserError(Problem(message, key=KEY, where=where, hint=OF_ANOTHER_MODEL))
    for buffer, of in ((trunk.normalize.mean, mean), (trunk.normalize.std, std)):
        buffer.copy_(fit_channels(of, len(buffer)))


@lru_cache(maxsize=256)  # every corner of a space is checked, and none changes this
def look(name: str, image: ImageShape, output: Output, weights: str) -> Problem | Stages:
    """Compute features of two images of which only the shape exists.

    Args:
        name: Name of the model.
        image: The images.
        output: The objects.
        weights: Pretrained weights, or none.

    Returns:
        The stages of the model, or what is wrong with the size of the images.
    """
    size = f"{image.channels}x{image.height}x{image.width}"
    settings = Settings(DETECTIONS, None, None, None, None, weights)
    try:
        with torch.device("meta"), torch.inference_mode():
            trunk = build(name, image, {"": output}, settings).get_submodule("trunk").eval()
            trunk(torch.zeros(2, image.channels, image.height, image.width))
    except Exception as error:  # torchvision's models check sizes in many ways
        hint = "it is made for images of 300x300 pixels" if name.startswith("ssd300_") else ""
        return Problem(f"{name} cannot take images {size}: {error}", "name", hint=hint)
    return stages_of(trunk, "trunk.")
