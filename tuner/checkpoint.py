"""Checkpoints: folders that hold a trial's weights, its state and what it was.

========== ==============================================================================
model.pt   weights, by name
state.pt   optimizer, learning-rate schedule and progress: what is needed to go on
trial.yaml the trial as resolved
metrics.json metrics of the epoch that it was taken after
========== ==============================================================================

The tensors are read with ``weights_only=True``: a checkpoint from elsewhere cannot run code.
"""

import json
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from torch import nn

from tuner.errors import Problem, UserError
from tuner.trial_config import TrialConfig

_WEIGHTS, _STATE, _TRIAL, _METRICS = "model.pt", "state.pt", "trial.yaml", "metrics.json"


def save(folder: Path, trial: TrialConfig, model: nn.Module, state: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Write a checkpoint into an empty folder. `state` holds tensors and plain values only."""
    for name, tensors in ((_WEIGHTS, model.state_dict()), (_STATE, state)):
        # By way of Python's files: torch's own do not say that a disk is full.
        with (folder / name).open("wb") as file:
            torch.save(tensors, file)
    (folder / _TRIAL).write_text(yaml.safe_dump(trial.model_dump(mode="json"), sort_keys=False))
    (folder / _METRICS).write_text(json.dumps(metrics, indent=1))  # last: where it is, the rest is whole


def read_state(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The weights and the state of a checkpoint, on the CPU."""
    weights = torch.load(folder / _WEIGHTS, map_location="cpu", weights_only=True)
    return weights, torch.load(folder / _STATE, map_location="cpu", weights_only=True)


def read_model(folder: Path) -> tuple[TrialConfig, nn.Module]:
    """The trial of a checkpoint and its model, on the CPU, ready to use: in eval mode, weights loaded.

    Raises:
        UserError: The folder is no checkpoint, or a damaged one.
    """
    missing = [name for name in (_WEIGHTS, _TRIAL, _METRICS) if not (folder / name).is_file()]
    if missing:
        raise UserError(Problem(f"is no checkpoint: {', '.join(missing)} not found", where=str(folder)))
    try:
        trial = TrialConfig.model_validate(yaml.safe_load((folder / _TRIAL).read_text()))
        model = trial.build_model()
        model.load_state_dict(torch.load(folder / _WEIGHTS, map_location="cpu", weights_only=True))
    except UnpicklingError:  # torch's own message explains how to run the code in it
        message = f"{_WEIGHTS} holds more than tensors: loading it could run code, so it is not loaded"
        raise UserError(Problem(message, where=str(folder))) from None
    except (yaml.YAMLError, ValidationError, RuntimeError, EOFError) as error:
        raise UserError(Problem(f"is a damaged checkpoint: {error}", where=str(folder))) from None
    return trial, model.eval()
