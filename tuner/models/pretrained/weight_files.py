"""Files of pretrained weights, and fitting what they hold."""

import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from tuner.errors import Problem, UserError
from tuner.user_code import folders

KEY = "trial.model.weights"

OF_ANOTHER_MODEL = "name the model that the file is of, as trial.model.name, or a file of this one"
"""What to do if a file is not of the model."""

State = dict[str, Any]
"""Weights by name."""


def is_path(weights: str) -> bool:
    """Whether the value of ``weights`` is the path of a file, and not a name."""
    return any(character in weights for character in "/.~\\")


def path_of(weights: str) -> Path:
    """The file that ``weights`` names; in a checkpoint, or one of a registered version, that of its model."""
    path = folders()[0] / Path(weights).expanduser()
    if not path.is_dir():
        return path
    return next((file for file in (path / "model.pt", path / "model.pth") if file.is_file()), path / "model.pt")


def read(path: Path, hint: str = "") -> State:
    """Read a file of weights, by name, without running code in it.

    Args:
        path: The file.
        hint: What to do if it is damaged.

    Raises:
        UserError: The file is missing or damaged, or holds something else.
    """
    where = str(path)
    hint = hint or "name a file that torch.save(model.state_dict(), FILE) has written, whole"
    if not path.is_file():
        there = "a path is relative to the folder of the YAML file; that of a folder means a checkpoint of tuner"
        raise UserError(Problem("this file of weights does not exist", key=KEY, where=where, hint=there))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of a pickle before it refuses it
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:  # torch's own message explains how to run the code in the file
        of_code = "save the model's state_dict() instead of the model"
        raise UserError(Problem("holds more than tensors, or is damaged", key=KEY, where=where, hint=of_code)) from None
    except Exception as error:  # torch does not document which exceptions damaged files raise
        why = f"{type(error).__name__}: {str(error).partition('. This is an internal')[0]}"
        message = f"cannot be read: it is damaged, or no file of weights ({why})"
        raise UserError(Problem(message, key=KEY, where=where, hint=hint)) from None
    for key in ("state_dict", "model"):  # as Lightning, and torchvision's training scripts, save it
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(Problem("holds no state_dict, that is tensors by name", key=KEY, where=where, hint=hint))
    return content


def fit_channels(values: Tensor, channels: int) -> Tensor:
    """Statistics (3, 1, 1) for another number of channels: their mean for grey images, else repeated."""
    if len(values) == channels:
        return values
    return values.mean(dim=0, keepdim=True) if channels == 1 else values[torch.arange(channels) % len(values)]
