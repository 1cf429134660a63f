"""Weights of a classification model of torchvision for the backbone of its detectors and segmentation models.

torchvision calls them ``weights_backbone``. All other layers, as those of a feature pyramid, begin with new weights.
"""

import warnings
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from tuner.errors import Problem, UserError
from tuner.models.pretrained.torchvision import backbone as backbones
from tuner.models.pretrained.torchvision import weights as pretrained
from tuner.models.pretrained.weight_files import KEY, fit_channels
from tuner.models.stages import Stages

_OTHER_BACKBONE = "ssdlite320_"
"""With such weights, torchvision gives it a wider backbone than with its own."""
_NEW = (".fpn", ".extra")
"""What ends the names of the stages that a classification model lacks, or has in part."""
_SCALES = "scale_weight"
"""The parameter that SSD has beside the layers of its backbone."""


@lru_cache(maxsize=256)
def backbone_of(name: str) -> str:
    """The classification model that a detector or a segmentation model has in it; empty if its weights do not fit."""
    if name.startswith(_OTHER_BACKBONE):
        return ""
    return max((each for each in backbones.names() if f"_{each}" in name), key=len, default="")


def choices(name: str) -> tuple[str, ...]:
    """The names of the weights that torchvision has of the backbone of a model."""
    backbone = backbone_of(name)
    return tuple(each for each in pretrained.choices(backbone) if each != "DEFAULT") if backbone else ()


def freeze_problem(name: str, weights: str, freeze: int | str, stages: Stages) -> Problem | None:
    """Why stages cannot keep their weights, as some of these are new; None if they can."""
    able = next((at for at, names in enumerate(stages.names) if any(each.endswith(_NEW) for each in names)), None)
    if able is None or freeze == "none" or (isinstance(freeze, int) and freeze <= able):
        return None
    message = f"{weights} are weights of {backbone_of(name)}: the layers of {name} behind it would keep new weights"
    return Problem(message, "freeze", hint=f"allowed: none, or 1 to {able}")


def load(trunk: Any, name: str, weights: str) -> None:
    """Load weights of a classification model into the backbone of a trunk, which has ``normalize``, too.

    Raises:
        UserError: They are not weights of that model.
    """
    from torchvision import models

    source = backbone_of(name)
    state = pretrained.read(source, weights)
    with torch.device("meta"):
        theirs = _layers(models.get_model(source, weights=None))
    top = backbones.classifier_name(source).partition(".")[0]
    theirs = [key for key in theirs if not key.startswith(f"{top}.")]
    backbone: nn.Module = trunk.backbone
    # The layers lie in the same order in both, and in the backbone under other names.
    names = dict(zip(_layers(backbone), theirs, strict=False))
    renamed = {ours: state[key] for ours, key in names.items() if key in state}
    pretrained.fit_stem(backbone, renamed)
    own = backbone.state_dict()
    wrong = [key for key in names if key not in renamed or renamed[key].shape != own[key].shape]
    if wrong or len(names) < len(theirs):
        named = ", ".join(names[key] for key in wrong[:3]) or "more layers than the backbone has"
        message = f"these are not weights of {source}: what does not fit is {named}"
        where = str(pretrained.location(source, weights))
        raise UserError(Problem(message, key=KEY, where=where, hint="delete it: it is downloaded again"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of every tensor that it copies to the meta device
        backbone.load_state_dict(renamed, strict=False)
    for buffer, of in zip(
        (trunk.normalize.mean, trunk.normalize.std), pretrained.statistics(source, weights), strict=True
    ):
        buffer.copy_(fit_channels(torch.tensor(of).view(-1, 1, 1), len(buffer)))


def _layers(module: nn.Module) -> list[str]:
    """The names of the parameters and statistics of the layers of a module, in their order."""
    return [key for key in module.state_dict() if not key.endswith("num_batches_tracked") and key != _SCALES]
