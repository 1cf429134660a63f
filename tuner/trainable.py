"""The Ray Tune trainable: it wraps `train.fit` and runs on a worker."""

import json
import random
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray import tune

from tuner import imports, usage
from tuner.checkpoint import read_model
from tuner.device import keep_freed_memory, pick_device, use_threads
from tuner.disk import FULL, is_full
from tuner.scoring import Objective
from tuner.train import Diverged, Save, fit, predict
from tuner.trial_config import TrialConfig
from tuner.trials import REASON, STATUS, SYSTEM, TRACEBACK


def train_trial(payload: dict[str, Any], carried: Mapping[str, Any] | None = None) -> None:
    """Train one trial and report each of its epochs with a checkpoint.

    A trial that fails says so in its last report instead of raising: Ray would end the worker, and the next trial would
    pay for a new one.

    Args:
        payload: ``task``: as JSON ``trial`` and ``objective``, ``threads`` to compute on, ``gpu``: whether it has one.
        carried: The user's own code that the trial needs, by its name.
    """
    task = json.loads(payload["task"])
    imports.unpack(carried or {})
    keep_freed_memory()
    use_threads(task["threads"])
    # Without a share of a GPU it must not take one, though it may see it.
    device = torch.device("cpu") if torch.cuda.is_available() and not task["gpu"] else None
    resume = tune.get_checkpoint()

    def train() -> str:
        if resume is None:
            return _fit(task, device, None)
        with resume.as_directory() as folder:
            return _fit(task, device, Path(folder))

    _telling_how_it_ends(train)


def run_target(payload: dict[str, Any], carried: Mapping[str, Any]) -> None:
    """Call a Ray Tune function of the user's own; its reports and checkpoints go to Ray as they are.

    Args:
        payload: As for `train_trial`.
        carried: The function, by its name.
    """
    task = json.loads(payload["task"])
    trial = task["trial"]
    imports.unpack(carried)
    use_threads(task["threads"])
    function = imports.resolve(trial["target"])
    seed = trial["seed"]
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)

    def call() -> str:
        returned = function(trial["config"])
        if isinstance(returned, dict):  # as Ray has it: its last report
            tune.report(returned)
        return ""

    _telling_how_it_ends(call)


def _telling_how_it_ends(train: Callable[[], str]) -> None:
    """Call `train`, which returns why it ended early, and tell the driver in a last report how it ended."""
    try:
        reason = train()
    except Diverged as error:
        tune.report({STATUS: "diverged", REASON: str(error)})
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        if is_full(error):  # which is no fault of this configuration: it goes on where there is room
            tune.report({STATUS: "interrupted", REASON: FULL})
            return
        tune.report({STATUS: "failed", REASON: why, TRACEBACK: traceback.format_exc()})
    except SystemExit as leaving:
        if not leaving.code:  # Ray ends a trial that is to report no more so
            raise
        why = f"it left with exit status {leaving.code}"
        tune.report({STATUS: "failed", REASON: why, TRACEBACK: traceback.format_exc()})
    else:
        tune.report({STATUS: "completed", REASON: reason})


def _fit(task: dict[str, Any], device: torch.device | None, resume: Path | None) -> str:
    config = TrialConfig.model_validate(task["trial"])
    objective = Objective.model_validate(task["objective"])
    return fit(config, objective, _report, device=device, resume=resume)


def _report(metrics: dict[str, Any], save: Save) -> None:
    with tempfile.TemporaryDirectory(prefix="tuner-") as folder:
        save(Path(folder))
        tune.report(metrics | {SYSTEM: usage.sample()}, checkpoint=tune.Checkpoint.from_directory(folder))


def test(source: str, threads: int, carried: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, list[list[int]]]]:
    """A checkpoint measured on its test set.

    Args:
        source: The checkpoint, as Ray stored it.
        threads: How many to compute on.
        carried: The user's own code that the trial needs, by its name.

    Returns:
        The task's metrics as ``test_...``, and the confusion matrix of each target that is a class.
    """
    imports.unpack(carried)
    use_threads(threads)
    keep_freed_memory()
    with tune.Checkpoint(source).as_directory() as folder:
        config, model = read_model(Path(folder))
    device = pick_device()
    outputs, targets = predict(model.to(device), config.data.load_test().to(device))
    measured = config.task.measure(outputs, targets)
    return {f"test_{name}": value for name, value in measured.items()}, config.task.confusion(outputs, targets)
