"""Checkpoints of models whose weights are those that they begin with, or that a few steps have trained."""

from pathlib import Path
from typing import Any

import torch

from tuner.train.checkpoint import Save
from tuner.train.trial_config import TrialConfig


def write(folder: Path, **sections: Any) -> TrialConfig:
    """Write the checkpoint of a trial that was not trained; return the trial."""
    trial = TrialConfig.model_validate({"seed": 0, "precision": "float32"} | sections)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    Save(trial, trial.build_model().state_dict(), {"epoch": 1}, {"epoch": 1, "val_accuracy": 0.5})(folder)
    return trial


def small(folder: Path) -> Path:
    """Write the checkpoint of a small network of the digits; return its folder."""
    write(folder, data={"kind": "digits"}, model={"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8})
    return folder
