"""The segmentation models of torchvision: an output for each pixel.

torchvision is imported where it is used, because importing it takes seconds.
"""

from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.errors import Problem, UserError
from tuner.interfaces import ImageShape, Output, WithAuxiliary
from tuner.models.heads import Normalize
from tuner.models.pretrained.torchvision import backbone as backbones
from tuner.models.pretrained.torchvision import weights as pretrained
from tuner.models.pretrained.weight_files import KEY, OF_ANOTHER_MODEL, fit_channels
from tuner.models.stages import Stages, stages_of

_AUXILIARY_WEIGHT = 0.5
"""Weight of the loss of the auxiliary output, as in torchvision's reference training."""


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """The names of torchvision's segmentation models."""
    from torchvision import models

    return tuple(models.list_models(module=models.segmentation))


def has_auxiliary(name: str) -> bool:
    """Whether a model can have an auxiliary output."""
    return not name.startswith("lraspp")


def why_not_for(name: str, outputs: Mapping[str, Output]) -> Problem | None:
    """Why a model cannot have these outputs; None if it can."""
    if len(outputs) == 1 and all(output.per_pixel and not output.hidden for output in outputs.values()):
        return None
    message = f"{name} has one output for each pixel, without a hidden layer, and the task needs others"
    return Problem(message, "name", hint="kind: unet has several outputs, of each pixel and of the whole image")


def build(name: str, image: ImageShape, outputs: Mapping[str, Output], *, auxiliary: bool) -> nn.Module:
    """Build a model that maps images (N, C, H, W) in [0, 1] to the output (N, size, H, W), or a dict of it by head.

    Args:
        name: Name of the model.
        image: The images.
        outputs: The output.
        auxiliary: Whether it has an auxiliary output in training mode.
    """
    from torchvision import models

    [(head, output)] = outputs.items()
    arguments: dict[str, Any] = {"aux_loss": auxiliary} if has_auxiliary(name) else {}
    model: Any = models.get_model(name, weights=None, weights_backbone=None, num_classes=output.size, **arguments)
    backbones.set_channels(model, image.channels)
    layers = OrderedDict[str, nn.Module](normalize=Normalize(image), backbone=model.backbone)
    return _Segmentation(nn.Sequential(layers), model.classifier, getattr(model, "aux_classifier", None), head)


class _Segmentation(nn.Module):
    """A trunk, a classifier of pixels, and one of the features of an inner layer.

    Args:
        trunk: Maps images to a dict of features.
        classifier: Computes the output from them.
        auxiliary: Computes the auxiliary output; None for none.
        name: The name of the output.
    """

    def __init__(self, trunk: nn.Module, classifier: nn.Module, auxiliary: nn.Module | None, name: str) -> None:
        super().__init__()
        self.trunk = trunk
        self.classifier = classifier
        self.auxiliary = auxiliary
        self.name = name

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor] | WithAuxiliary:
        features = self.trunk(images)
        size = images.shape[-2:]
        outputs = self._of(self.classifier(features.get("out", features)), size)  # LR-ASPP's classifier takes them all
        if self.auxiliary is None or not self.training:
            return outputs
        return WithAuxiliary(outputs, (self._of(self.auxiliary(features["aux"]), size),), _AUXILIARY_WEIGHT)

    def _of(self, scores: Tensor, size: torch.Size) -> Tensor | dict[str, Tensor]:
        whole = functional.interpolate(scores, size=size, mode="bilinear", align_corners=False)
        return {self.name: whole} if self.name else whole


def load(model: nn.Module, name: str, weights: str) -> None:
    """Load weights into what `build` has returned; a layer of another number of classes keeps its new weights.

    Raises:
        UserError: They are not weights of this model.
    """
    state = {key.removeprefix("module."): value for key, value in pretrained.read(name, weights).items()}
    trunk: Any = model.get_submodule("trunk")
    backbone = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    pretrained.fit_stem(trunk.backbone, backbone)
    state |= {f"backbone.{key}": value for key, value in backbone.items()}
    own = model.state_dict()
    renamed = {_renamed(key): value for key, value in state.items()}
    last = [key for key in own if key.startswith(("classifier.", "auxiliary."))]
    fitting, problems = {}, []
    for key, value in renamed.items():
        if key not in own:
            if not key.startswith("auxiliary."):
                problems.append(f"{key} is unknown")
        elif value.shape == own[key].shape:
            fitting[key] = value
        elif key not in last:
            problems.append(f"{key} has the shape {tuple(value.shape)}, not {tuple(own[key].shape)}")
    problems += [
        f"{key} is missing"
        for key in own
        if key.startswith("trunk.backbone.") and key not in renamed and not key.endswith("num_batches_tracked")
    ]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        message = f"these are not weights of {name}: {'; '.join(problems[:3])}{more}"
        where = str(pretrained.location(name, weights))
        raise UserError(Problem(message, key=KEY, where=where, hint=OF_ANOTHER_MODEL))
    model.load_state_dict(fitting, strict=False)
    for buffer, of in zip(
        (trunk.normalize.mean, trunk.normalize.std), pretrained.statistics(name, weights), strict=True
    ):
        buffer.copy_(fit_channels(torch.tensor(of).view(-1, 1, 1), len(buffer)))


def _renamed(key: str) -> str:
    """The name of a weight in `build`'s module, given that in torchvision's."""
    for theirs, ours in (("backbone.", "trunk.backbone."), ("aux_classifier.", "auxiliary.")):
        if key.startswith(theirs):
            return f"{ours}{key.removeprefix(theirs)}"
    return key


@lru_cache(maxsize=256)  # every corner of a space is checked, and none changes this
def look(name: str, image: ImageShape, output: Output) -> Problem | Stages:
    """Run a model on two images of which only the shape exists; return its stages, or what is wrong with their size."""
    size = f"{image.channels}x{image.height}x{image.width}"
    try:
        with torch.device("meta"), torch.inference_mode():
            model = build(name, image, {"": output}, auxiliary=False).eval()
            model(torch.zeros(2, image.channels, image.height, image.width))
    except Exception as error:  # torchvision's models check sizes in many ways
        return Problem(f"{name} cannot take images {size}: {error}", "name")
    return stages_of(model.get_submodule("trunk"), "trunk.")
