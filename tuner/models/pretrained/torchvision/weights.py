"""Pretrained weights of torchvision's models: where they are, their download, and loading them into a model."""

import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import torch
from torch import Tensor, nn

from tuner.errors import Problem, UserError
from tuner.models.pretrained.torchvision import backbone as backbones
from tuner.models.pretrained.weight_files import KEY, OF_ANOTHER_MODEL, State, fit_channels, is_path, path_of
from tuner.models.pretrained.weight_files import read as read_file
from tuner.storage.file_lock import exclusive

_TIMEOUT = 10.0  # seconds until the server's first answer; torch.hub itself would wait forever
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
_TRUNK = "trunk.backbone."
"""The prefix of a backbone's weights in a checkpoint."""


def choices(name: str) -> tuple[str, ...]:
    """The names of the weights that torchvision has of a model, of which DEFAULT is another name of the best."""
    from torchvision import models

    return tuple(models.get_model_weights(name).__members__)


def statistics(name: str, weights: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel with which weights were trained; of a path, torchvision's own."""
    if name in ("googlenet", "inception_v3"):  # torchvision's transform_input converts to these
        return (0.5,) * 3, (0.5,) * 3
    transforms = _entry(name, "DEFAULT" if is_path(weights) else weights).transforms.keywords
    return transforms.get("mean", (0.485, 0.456, 0.406)), transforms.get("std", (0.229, 0.224, 0.225))


def categories(name: str, weights: str) -> tuple[str, ...]:
    """The names of the classes of torchvision's weights, by label; of a path, none."""
    return () if is_path(weights) else tuple(_entry(name, weights).meta["categories"])


def location(name: str, weights: str) -> Path:
    """The file of the weights; of torchvision's own, in torch.hub's cache."""
    if is_path(weights):
        return path_of(weights)
    file: str = _entry(name, weights).url.rpartition("/")[2]
    return Path(torch.hub.get_dir()) / "checkpoints" / file


def fetch(name: str, weights: str) -> bool:
    """Download torchvision's weights into torch.hub's cache unless they are there; return whether that was necessary.

    Raises:
        OSError: There is no network, or the disk is full.
        RuntimeError: The checksum is wrong.
    """
    path = location(name, weights)
    if path.is_file() or is_path(weights):
        return False
    url = _entry(name, weights).url
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path.parent, where_possible=True):  # trials that start together download once
        if path.is_file():
            return False
        with urlopen(url, timeout=_TIMEOUT):
            pass
        checksum = torch.hub.HASH_REGEX.search(path.name)
        torch.hub.download_url_to_file(url, str(path), checksum and checksum.group(1), progress=False)
    return True


def unavailable(name: str, weights: str, error: Exception) -> UserError:
    """The error that `fetch` failed, which says what to do."""
    path = location(name, weights)
    reason = getattr(error, "reason", None) or error
    message = f"the weights {weights} of {name} are missing and cannot be downloaded ({reason})"
    hint = (
        f"put {_entry(name, weights).url} there, or set TORCH_HOME to the folder that holds "
        f"hub/checkpoints/{path.name}, or write trial.model.offline: none to train from new weights instead"
    )
    return UserError(Problem(message, key=KEY, where=str(path), hint=hint))


def read(name: str, weights: str) -> State:
    """Read the file of the weights. Raises UserError if it is missing or damaged, or holds something else."""
    return read_file(location(name, weights), hint="" if is_path(weights) else "delete it: it is downloaded again")


def load(model: nn.Module, name: str, weights: str, state: State, *, is_part: bool = False) -> None:
    """Load weights into a model of `TorchvisionModel.build`, its first convolution and its output fitted.

    The output layer keeps its new weights if its shape differs.

    Args:
        model: The model.
        name: Its name in torchvision.
        weights: Where the weights come from.
        state: The weights by name.
        is_part: Whether the backbone may lack the last layers of the model.

    Raises:
        UserError: They are not weights of this model.
    """
    trunk: Any = model.get_submodule("trunk")
    last = backbones.classifier_name(name)
    metadata = getattr(state, "_metadata", None)
    state = {key.removeprefix("module."): value for key, value in state.items()}
    own = any(key.startswith(_TRUNK) for key in state)  # from a checkpoint of `tuner`
    output = {each: state.pop(f"head.output.{each}" if own else f"{last}.{each}", None) for each in ("weight", "bias")}
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in statistics(name, weights))
    if own:
        mean, std = (state.get(f"trunk.normalize.{each}", value) for each, value in (("mean", mean), ("std", std)))
        state = {key.removeprefix(_TRUNK): value for key, value in state.items() if key.startswith(_TRUNK)}
    state = {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items() if not key.startswith(_AUXILIARY)}
    fit_stem(trunk.backbone, state)
    _fit_positions(trunk.backbone, state)
    if is_part:
        whole, own_names = backbones.parameter_names(name), trunk.backbone.state_dict().keys()
        state = {key: value for key, value in state.items() if key in own_names or key not in whole}
    problems = load_part(trunk.backbone, state, metadata)
    if problems:
        message = f"these are not weights of {name}: {'; '.join(problems)}"
        raise UserError(Problem(message, key=KEY, where=str(location(name, weights)), hint=OF_ANOTHER_MODEL))
    channels = len(trunk.normalize.mean)
    trunk.normalize.mean.copy_(fit_channels(mean, channels))
    trunk.normalize.std.copy_(fit_channels(std, channels))
    _load_output(model, output)


def _entry(name: str, weights: str) -> Any:
    from torchvision import models

    return models.get_model_weights(name)[weights]


def fit_stem(backbone: nn.Module, state: State) -> None:
    """Fit the weights of the first convolution to the channels of the images.

    For grey images, the outputs are those of the image whose channels are all equal to it.
    """
    name, layer = next((n, each) for n, each in backbone.named_modules() if isinstance(each, nn.Conv2d))
    weight = state.get(f"{name}.weight")
    if weight is None or weight.dim() != 4 or weight.shape[1] == layer.in_channels:
        return
    count, channels = weight.shape[1], layer.in_channels
    if channels == 1:
        state[f"{name}.weight"] = weight.sum(dim=1, keepdim=True)
    else:
        state[f"{name}.weight"] = weight[:, torch.arange(channels) % count] * (count / channels)


def _fit_positions(backbone: Any, state: State) -> None:
    """Interpolate the positions of a vision transformer to the size of the images."""
    key = "encoder.pos_embedding"
    if key in state and hasattr(backbone, "patch_size") and state[key].dim() == 3:
        from torchvision.models.vision_transformer import interpolate_embeddings

        positions = OrderedDict({key: state[key]})
        state.update(interpolate_embeddings(backbone.image_size, backbone.patch_size, positions))


def load_part(part: nn.Module, state: State, metadata: Any = None) -> list[str]:
    """Load the weights of a part of a model, such as its backbone, and return what does not fit."""
    ordered = OrderedDict(state)
    if metadata is not None:
        ordered._metadata = metadata  # type: ignore[attr-defined]  # the versions of the modules that wrote them
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of every tensor that it copies to the meta device
            missing, unexpected = part.load_state_dict(ordered, strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        return _first([line for line in lines if line.startswith("size mismatch")] or lines)
    missing = [each for each in missing if not each.endswith("num_batches_tracked")]  # old files have none
    return _first([f"{each} is missing" for each in missing] + [f"{each} is unknown" for each in unexpected])


def _first(problems: list[str], count: int = 3) -> list[str]:
    more = [f"and {len(problems) - count} more"] if len(problems) > count else []
    return problems[:count] + more


def _load_output(model: nn.Module, values: dict[str, Tensor | None]) -> None:
    """Load the output layer if there is one layer of the same shape."""
    head = dict(model.named_children()).get("head")
    layer: Any = dict(head.named_children()).get("output") if head is not None else None
    weight, bias = values["weight"], values["bias"]
    if layer is None or weight is None or weight.flatten(1).shape != layer.weight.shape:
        return
    with torch.no_grad():
        layer.weight.copy_(weight.flatten(1))
        layer.bias.copy_(torch.zeros_like(layer.bias) if bias is None else bias)
