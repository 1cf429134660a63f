"""Checkpoints: folders from which a trial can resume and from which its model can be loaded.

============== ==========================================================================
model.pt       weights, by name
state.pt       state of the optimizer, the gradient scaler, early stopping and the loop
trial.yaml     the trial's complete configuration
signature.json inputs and outputs of the model, so that it can be built without the dataset
metrics.json   metrics of the epoch after which the checkpoint was saved
============== ==========================================================================

Tensors are read with ``weights_only=True``, so that they cannot run code. The user's code that builds the model or the
dataset is named in trial.yaml; it is neither imported nor called unless the caller trusts that name.
"""

import json
import zipfile
from collections.abc import Collection, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from tuner.errors import Damaged as Damaged
from tuner.errors import Problem, UserError
from tuner.storage.yaml import parse_yaml, write_yaml
from tuner.train.checkpoint.damage import errors_as_damage
from tuner.train.signature import Signature
from tuner.train.trial_config import TrialConfig
from tuner.user_code import without_imports

SIGNATURE = "signature.json"
"""Checkpoints of older versions lack this file: building their models needs the dataset."""

METRICS = "metrics.json"
"""The file with the metrics of the epoch after which a checkpoint was saved."""

TRIAL = "trial.yaml"
"""The file with the configuration of the trial."""

_WEIGHTS, _STATE = "model.pt", "state.pt"

PACKED = "model.pth"
"""The file that has the weights of a registered checkpoint, see `tuner.train.checkpoint.packed`."""

PACKED_WEIGHTS = "state_dict"
"""The key of the weights in it, as Lightning names it."""

DESCRIPTION = (TRIAL, SIGNATURE, METRICS)
"""The files that say what a checkpoint is; those of the tensors are the large ones."""


@dataclass(frozen=True)
class Save:
    """Writes a checkpoint when it is called with an empty folder.

    It refers to the tensors that are being trained, and thus writes their values at the time of the call; `snapshot`
    copies them.
    """

    trial: TrialConfig
    weights: dict[str, Any]
    state: dict[str, Any]
    """Tensors and plain values only."""
    metrics: dict[str, Any]

    def __call__(self, folder: Path) -> None:
        for name, tensors in ((_WEIGHTS, self.weights), (_STATE, self.state)):
            # Through Python's file objects: torch's own do not report a full disk.
            with (folder / name).open("wb") as file:
                torch.save(tensors, file)
        (folder / TRIAL).write_text(write_yaml(self.trial.model_dump(mode="json")))
        (folder / SIGNATURE).write_text(Signature.of(self.trial).model_dump_json(indent=1), encoding="utf-8")
        # Written last: a checkpoint with this file is complete.
        (folder / METRICS).write_text(json.dumps(self.metrics, indent=1))

    def snapshot(self) -> "Save":
        """A copy whose tensors are in the CPU's memory, so that the training can continue before they are written."""
        weights, state = _copied((self.weights, self.state))
        return replace(self, weights=weights, state=state)


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        mapping = copy(value)  # keeps the attribute in which a `state_dict` stores the versions of its modules
        mapping.update((key, _copied(item)) for key, item in value.items())
        return mapping
    if type(value) in (list, tuple):
        return type(value)(map(_copied, value))
    return deepcopy(value)


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint, complete or not."""
    return any((folder / name).is_file() for name in (_WEIGHTS, _STATE, TRIAL, SIGNATURE, METRICS))


def read_state(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the weights and the training state of a checkpoint, on the CPU.

    Raises:
        Damaged: One of the files is missing or damaged.
    """
    return read_weights(folder), _read_tensors(folder, _STATE)


def read_weights(folder: Path) -> dict[str, Any]:
    """Read the weights of a checkpoint, on the CPU.

    Raises:
        Damaged: Their file is missing or damaged.
    """
    if _is_packed(folder):
        return checked_weights(_read_tensors(folder, PACKED).get(PACKED_WEIGHTS), folder, PACKED)
    return checked_weights(_read_tensors(folder, _WEIGHTS), folder)


def _is_packed(folder: Path) -> bool:
    return (folder / PACKED).is_file() and not (folder / _WEIGHTS).is_file()


def checked_weights(weights: Any, folder: Path, name: str = _WEIGHTS) -> dict[str, Any]:
    """Return the content of a file of a checkpoint if it is weights.

    Raises:
        Damaged: It is not.
    """
    if not isinstance(weights, dict):
        raise Damaged(Problem(f"is a damaged checkpoint: {name} holds no weights", where=str(folder)))
    invalid = next((name for name, value in weights.items() if not _is_weight(name, value)), None)
    if invalid is not None:
        message = f"is a damaged checkpoint: {invalid!r} in {name} is not a weight"
        raise Damaged(Problem(message, where=str(folder)))
    return weights


def _is_weight(name: Any, value: Any) -> bool:
    """Whether this is an item of a `state_dict`: a tensor, or the state of `Module.get_extra_state`."""
    return type(name) is str and (type(value) is torch.Tensor or name.rpartition(".")[2] == "_extra_state")


def _read_tensors(folder: Path, name: str) -> dict[str, Any]:
    """Read a file that `torch.save` wrote, on the CPU, without running code in it.

    Raises:
        Damaged: The file is missing, damaged, or does not hold a dict.
    """
    where = str(folder)
    try:
        with (folder / name).open("rb") as file:
            with zipfile.ZipFile(file) as archive:
                corrupt = archive.testzip()  # torch writes checksums but does not verify them
            if corrupt is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {corrupt}")
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError:  # torch's own message explains how to run the code in the file
        message = f"{name} holds more than tensors: loading it could run code, so it is not loaded"
        raise Damaged(Problem(message, where=where)) from None
    except Exception as error:  # torch does not document which exceptions damaged files raise
        why = f"{type(error).__name__}: {str(error).partition('. This is an internal')[0]}"
        raise Damaged(Problem(f"is a damaged checkpoint: {name}: {why}", where=where)) from None
    if not isinstance(content, dict):
        message = f"is a damaged checkpoint: {name} holds a {type(content).__name__}, not a dict"
        raise Damaged(Problem(message, where=where))
    return content


def read_model(folder: Path, trust: Collection[str] = ()) -> tuple[Signature, nn.Module]:
    """Load the model of a checkpoint with its weights, on the CPU and in eval mode.

    The dataset is needed only if an older version wrote the checkpoint.

    Args:
        folder: The checkpoint.
        trust: The user's code, as ``pkg.module:name``, that may be called to build the model and, if an older version
            wrote the checkpoint, to read the dataset.

    Returns:
        The signature of the model, and the model.

    Raises:
        Damaged: The folder is not a checkpoint, or it is damaged.
        UserError: The checkpoint names code that is not trusted.
    """
    signature, _, model = read_inference(folder, trust)
    return signature, model


def read_inference(
    folder: Path, trust: Collection[str] = (), weights: dict[str, Any] | None = None
) -> tuple[Signature, TrialConfig, nn.Module]:
    """As `read_model`; also return the trial, of whose sections only those of the model and the task count here.

    Args:
        folder: The checkpoint.
        trust: As for `read_model`.
        weights: Its weights, if they are read already.
    """
    if weights is None:
        _check_complete(folder)
    signature, trial = read_description(folder, trust)
    weights = read_weights(folder) if weights is None else weights
    image, outputs = signature.image, signature.task_outputs
    hint = "tuner.load(..., code=FOLDER) searches that folder, too, as --code FOLDER does in a command"
    with errors_as_damage(folder, f"{TRIAL} and {SIGNATURE}", is_code=bool(trial.model.user_code), hint=hint):
        trial.model.check(image, outputs)
    with errors_as_damage(folder, _WEIGHTS):
        if not trial.model.user_code:  # a damaged trial.yaml may describe a model that does not fit into memory
            with torch.device("meta"):
                needed = sum(each.numel() for each in trial.model.build(image, outputs).parameters())
            stored = sum(value.numel() for value in weights.values() if isinstance(value, torch.Tensor))
            if needed > stored:
                raise RuntimeError(f"{TRIAL} describes {needed} weights, but {_WEIGHTS} holds {stored}")
        model = trial.model.build(image, outputs)
        model.load_state_dict(weights)
    return signature, trial, model.eval()


def read_description(folder: Path, trust: Collection[str] = ()) -> tuple[Signature, TrialConfig]:
    """Read what a checkpoint says of its model, which needs the files of `DESCRIPTION` alone; see `read_model`.

    Returns:
        The signature of the model, and the trial, of whose sections only the model can be relied on.

    Raises:
        Damaged: One of the files is missing or damaged.
        UserError: The checkpoint names code that is not trusted.
    """
    _check_complete(folder, (TRIAL, METRICS))
    signature = _read_signature(folder)
    if signature is None:
        trial = _read_trial(folder, trust, ("model", "data"))
        return Signature.of(trial), trial
    with without_imports():
        return signature, _read_trial(folder, trust, ("model",))


def read_trial(folder: Path, trust: Collection[str] = ()) -> TrialConfig:
    """Read the trial of a checkpoint.

    Raises:
        Damaged: The folder is not a checkpoint, or it is damaged, or the user's own dataset cannot be read.
        UserError: The checkpoint names code that is not trusted.
    """
    _check_complete(folder)
    return _read_trial(folder, trust, ("model", "data"))


def _check_complete(folder: Path, needed: Sequence[str] = (_WEIGHTS, TRIAL, METRICS)) -> None:
    packed = {_WEIGHTS} if _is_packed(folder) else set()
    missing = [name for name in needed if name not in packed and not (folder / name).is_file()]
    if missing:
        raise Damaged(Problem(f"is not a checkpoint: {', '.join(missing)} not found", where=str(folder)))


def _read_trial(folder: Path, trust: Collection[str], sections: Sequence[str]) -> TrialConfig:
    """Read the trial; the user's code named in these sections has to be trusted."""
    with errors_as_damage(folder, TRIAL):
        data = parse_yaml((folder / TRIAL).read_text())
    _check_trusted(TrialConfig.targets_in(data, sections), trust, str(folder / TRIAL))
    hint = ""
    if TrialConfig.targets_in(data, ("data",)) and not (folder / SIGNATURE).is_file():
        hint = f"there is no {SIGNATURE}: without it, building the model needs the dataset that it was trained on"
    with errors_as_damage(folder, TRIAL, is_code=bool(TrialConfig.targets_in(data, sections)), hint=hint):
        return TrialConfig.model_validate(data)


def _read_signature(folder: Path) -> Signature | None:
    """Read the signature; None if an older version wrote the checkpoint."""
    if not (folder / SIGNATURE).is_file():
        return None
    with errors_as_damage(folder, SIGNATURE):
        return Signature.model_validate_json((folder / SIGNATURE).read_bytes())


def _check_trusted(targets: list[str], trust: Collection[str], where: str) -> None:
    unknown = sorted({*targets} - {*trust})
    if unknown:
        message = f"loading it would run code that it names: {', '.join(unknown)}"
        options = " ".join(f"--trust {name}" for name in unknown)
        hint = f"if you trust that code and the arguments in this file: trust={unknown}, or {options} in a command"
        raise UserError(Problem(message, where=where, hint=hint))
