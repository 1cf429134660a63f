"""Backbones from torchvision's models, and their adaptation to images and fields.

torchvision is imported where it is used, because importing it takes seconds.
"""

import contextlib
import math
import warnings
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from tuner.interfaces import ImageShape

_STEMS = {
    "ResNet": ("conv1", "maxpool"),
    "DenseNet": ("features.conv0", "features.pool0"),
    "GoogLeNet": ("conv1.conv", "maxpool1"),
}
"""The 7x7 convolution and the pooling with which a model begins, by the name of its class."""
_NONE: tuple[tuple[str, ...], float] = (), 0.0
_AUXILIARY = {
    "GoogLeNet": (("aux2", "aux1"), 0.3),  # Szegedy et al., 2014, section 5
    "Inception3": (("AuxLogits",), 0.4),  # as in TensorFlow's training of Inception v3
}
"""The branches with auxiliary outputs, in the order in which the model returns them, and the weight of their losses."""


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """The names of torchvision's classification models."""
    from torchvision import models

    return tuple(models.list_models(module=models))


def build(name: str, image: ImageShape) -> nn.Module:
    """Build a model of torchvision with new weights and 1,000 classes.

    Args:
        name: Name of the model.
        image: The images; they determine the sizes that some of the models need to know.
    """
    from torchvision import models

    family = models.get_model_builder(name).__module__.rpartition(".")[2]
    arguments: dict[str, Any] = {}
    if family == "vision_transformer":
        arguments = {"image_size": image.height}
    elif family == "maxvit":
        arguments = {"input_size": (image.height, image.width)}
    elif family in ("inception", "googlenet"):
        arguments = {"init_weights": True}
    with _ValuesOnCPU() if family == "regnet" else contextlib.nullcontext():
        model: nn.Module = models.get_model(name, weights=None, **arguments)
    return model


class _ValuesOnCPU(TorchFunctionMode):
    """Keeps the values with which RegNet computes its widths when it is built on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return func(*args, **(kwargs | {"device": "cpu"} if func in (torch.arange, torch.tensor) else kwargs))


def size_hint(name: str) -> str:
    """What the sizes of images must be, as far as it is known."""
    from torchvision import models

    family = models.get_model_builder(name).__module__.rpartition(".")[2]
    if family == "vision_transformer":
        return f"it needs square images whose side is a multiple of its patches, {name.rpartition('_')[2]} pixels"
    if family == "maxvit":
        return "it needs images whose height and width are multiples of 224 pixels"
    least = next((each.meta["min_size"] for each in models.get_model_weights(name)), None)
    return f"it needs images of at least {least[0]}x{least[1]} pixels" if least else ""


def remove_classifier(model: nn.Module) -> int:
    """Replace the last layer of a model of torchvision by the identity, and return the number of its inputs."""
    name, layer = classifier_of(model)
    model.set_submodule(name, nn.Identity())
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


@lru_cache(maxsize=256)
def parameter_names(name: str) -> frozenset[str]:
    """The names of the parameters and buffers of a model of torchvision."""
    with torch.device("meta"):
        return frozenset(build(name, ImageShape(3, 224, 224, (0.0,) * 3, (1.0,) * 3)).state_dict())


def pyramid(model: nn.Module, image: ImageShape) -> dict[str, int]:
    """The last features of each size that a model on the meta device has for images, the largest first.

    Sizes are halves, quarters, eighths, ... of the images' size; features of a single pixel are left out.

    Returns:
        The channels of the features by the name that torchvision gives to the step of the model.
    """
    from torchvision.models.feature_extraction import get_graph_node_names

    names = get_graph_node_names(model)[1]
    every = extractor(model, names).eval()
    found: dict[int, tuple[str, int]] = {}
    with torch.inference_mode():
        outputs = every(torch.zeros(2, image.channels, image.height, image.width))
    for name, output in outputs.items():
        if isinstance(output, torch.Tensor) and output.ndim == 4 and min(output.shape[-2:]) > 1:
            level = round(math.log2(image.height / output.shape[-2]))
            sizes = [-(-side // 2**level) for side in (image.height, image.width)] if level > 0 else []
            if sizes and all(abs(a - b) <= 1 for a, b in zip(sizes, output.shape[-2:], strict=True)):
                found[level] = name, output.shape[1]
    return dict(found[level] for level in sorted(found))


def extractor(model: nn.Module, names: list[str]) -> nn.Module:
    """The part of a model that computes some of its features: a module that returns them by name."""
    from torchvision.models.feature_extraction import create_feature_extractor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it advises on what differs between training and eval mode
        features: nn.Module = create_feature_extractor(model, train_return_nodes=names, eval_return_nodes=names)
    return features


@lru_cache(maxsize=256)
def classifier_name(name: str) -> str:
    """The name of the last layer of a model of torchvision."""
    with torch.device("meta"):
        return classifier_of(build(name, ImageShape(3, 224, 224, (0.0,) * 3, (1.0,) * 3)))[0]


def classifier_of(model: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The name of the last layer of a model of torchvision, and the layer."""
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return layers[-1]


def auxiliary_weight(model: nn.Module) -> float:
    """The weight of the loss of each auxiliary output of a model; 0 if it has none."""
    return _AUXILIARY.get(type(model).__name__, _NONE)[1]


def take_auxiliary(model: nn.Module) -> list[tuple[nn.Module, int]]:
    """Take the branches with auxiliary outputs off a model, which returns what they begin with in training mode then.

    Returns:
        For each branch, in the order in which the model returns what it begins with, a module that maps this to
        features (N, F), and F.
    """
    branches = []
    for name in _AUXILIARY.get(type(model).__name__, _NONE)[0]:
        branch = model.get_submodule(name)
        branches.append((branch, remove_classifier(branch)))
        model.set_submodule(name, nn.Identity())
    return branches


def forget_auxiliary(model: nn.Module) -> None:
    """Have a model whose branches were taken off return in training mode what it returns in eval mode."""
    model.aux_logits = False  # type: ignore[assignment]


@lru_cache(maxsize=256)
def has_room_for_auxiliary(name: str, image: ImageShape) -> bool:
    """Whether a model has branches with auxiliary outputs, and images are large enough for them."""
    with torch.device("meta"):
        model = build(name, image)
        remove_classifier(model)
        set_channels(model, image.channels)
        if not auxiliary_weight(model):
            return False
        try:
            model.train()(torch.zeros(2, image.channels, image.height, image.width))
        except Exception:  # torchvision's models check sizes in many ways
            return False
    return True


def has_large_stem(model: nn.Module) -> bool:
    """Whether `shrink_stem` changes the model."""
    return type(model).__name__ in _STEMS


def shrink_stem(model: nn.Module) -> None:
    """Replace a 7x7 convolution of stride 2 and a pooling by a 3x3 convolution of stride 1, where a model has them."""
    if has_large_stem(model):
        convolution, pooling = _STEMS[type(model).__name__]
        _replace(model, convolution, kernel_size=3, stride=1, padding=1)
        model.set_submodule(pooling, nn.Identity())


def set_channels(model: nn.Module, channels: int) -> None:
    """Replace the first convolution by one for this number of channels, unless it has that number."""
    name, layer = next((name, each) for name, each in model.named_modules() if isinstance(each, nn.Conv2d))
    if layer.in_channels != channels:
        _replace(model, name, in_channels=channels)


def _replace(model: nn.Module, name: str, **changes: Any) -> None:
    """Replace a convolution by one with other settings, whose outputs begin with the same variance."""
    old: Any = model.get_submodule(name)
    settings = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    arguments = {each: getattr(old, each) for each in settings} | changes
    new = nn.Conv2d(**arguments, bias=old.bias is not None)
    with torch.no_grad():
        inputs = new.weight[0].numel() / old.weight[0].numel()
        new.weight.copy_(torch.randn_like(new.weight) * old.weight.std() / inputs**0.5)
        if new.bias is not None:
            new.bias.copy_(old.bias)
    model.set_submodule(name, new)


def set_dropout(model: nn.Module, probability: float) -> bool:
    """Set the probability of all dropout layers, and return whether there are any."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Dropout)]
    for layer in layers:
        layer.p = probability
    return bool(layers)


def set_drop_path(model: nn.Module, probability: float) -> bool:
    """Scale the probabilities of stochastic depth so that the last is `probability`; return whether there are any."""
    from torchvision.ops import StochasticDepth

    layers = [layer for layer in model.modules() if isinstance(layer, StochasticDepth)]
    last = max((layer.p for layer in layers), default=0)
    for layer in layers:
        layer.p = probability * layer.p / last if last else 0.0
    return last > 0
