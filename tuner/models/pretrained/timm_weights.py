"""Pretrained weights of timm's models: in the cache of Hugging Face's hub, or a file."""

from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import torch
from torch import Tensor

from tuner.errors import Problem, UserError
from tuner.models.pretrained.weight_files import KEY, State, fit_channels, is_path, path_of
from tuner.models.pretrained.weight_files import read as read_file

_TIMEOUT = 10.0  # seconds until the hub's first answer; its client would try for a minute
_FILES = ("model.safetensors", "pytorch_model.bin")


def config_of(name: str) -> Any:
    """What timm knows of the weights of a model."""
    from timm.models import get_pretrained_cfg

    return get_pretrained_cfg(name, allow_unregistered=False)


def cached(name: str) -> Path | None:
    """The file of a model's weights in the cache of the hub; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    config = config_of(name)
    files = [config.hf_hub_filename] if config.hf_hub_filename else _FILES
    found = [try_to_load_from_cache(config.hf_hub_id, file) for file in files]
    return next((Path(each) for each in found if isinstance(each, str)), None)


def fetch(name: str, weights: str) -> bool:
    """Download a model's weights into the cache of the hub unless they are there; return whether that was necessary.

    Raises:
        OSError: There is no network, the hub has no such file, or the disk is full.
    """
    if is_path(weights) or cached(name) is not None:
        return False
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        with urlopen(constants.ENDPOINT, timeout=_TIMEOUT):
            pass
    except HTTPError:
        pass  # it answers
    config = config_of(name)
    for file in [config.hf_hub_filename] if config.hf_hub_filename else _FILES:
        try:
            hf_hub_download(config.hf_hub_id, file)
        except EntryNotFoundError:
            continue
        return True
    raise FileNotFoundError(f"{config.hf_hub_id} has none of {', '.join(_FILES)}")


def unavailable(name: str, error: Exception) -> UserError:
    """The error that `fetch` failed, which says what to do."""
    reason = getattr(error, "reason", None) or error
    message = f"the weights of {name} are missing and cannot be downloaded ({reason})"
    hint = (
        f"download {config_of(name).hf_hub_id} elsewhere and set HF_HOME to that cache, or name a file of weights, or "
        "write trial.model.offline: none to train from new weights instead"
    )
    return UserError(Problem(message, key=KEY, hint=hint))


def read(name: str, weights: str) -> State:
    """Read the weights, by name, without running code in their file.

    Raises:
        UserError: The file is missing or damaged, or holds something else.
    """
    path = None if is_path(weights) else cached(name)
    if path is not None and path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    return read_file(path or path_of(weights))


def classes_in(name: str, weights: str, state: State) -> int:
    """The number of classes of a model's weights; 0 if a file has no classifier."""
    config = config_of(name)
    classifier = config.classifier if isinstance(config.classifier, str) else next(iter(config.classifier or ()), "")
    values = state.get(f"{classifier}.weight")
    if values is None:
        return 0 if is_path(weights) else config.num_classes
    return len(values)


def of_channels(values: tuple[float, ...], channels: int) -> Tensor:
    """Statistics of colour images (channels, 1, 1) for images of another number of channels."""
    return fit_channels(torch.tensor(values).view(-1, 1, 1), channels)
