"""Checkpoints: folders that hold a trial's weights, its state and what it was.

============== ==========================================================================
model.pt       weights, by name
state.pt       optimizer, learning-rate schedule and progress: what is needed to go on
trial.yaml     the trial as resolved
signature.json what the model takes and returns: with it, the model is built without the dataset
metrics.json   metrics of the epoch that it was taken after
============== ==========================================================================

The tensors are read with ``weights_only=True``: they cannot run code. A model or dataset of one's own is made by the
code that trial.yaml names: nothing of it is called, nor imported, unless whoever reads the checkpoint trusts that name.
"""

import contextlib
import json
import zipfile
from collections.abc import Collection, Iterator, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from torch import nn

from tuner.errors import Mistakes, Problem, UserError
from tuner.storage.yaml import parse_yaml, write_yaml
from tuner.train.signature import Signature
from tuner.train.trial_config import TrialConfig
from tuner.user_code import without_imports

SIGNATURE = "signature.json"
"""Checkpoints of older versions have none: their models are built from the dataset."""

METRICS = "metrics.json"
"""Metrics of the epoch that a checkpoint was taken after."""

_WEIGHTS, _STATE, _TRIAL = "model.pt", "state.pt", "trial.yaml"


class Damaged(UserError):
    """A checkpoint, or a part of it, is not there or cannot be read."""

    @property
    def why(self) -> str:
        """What is wrong with it, without saying where."""
        return "; ".join(problem.message for problem in self.problems)


@dataclass(frozen=True)
class Save:
    """Writes a checkpoint of one moment, when it is called with an empty folder: of the moment of the call, for what
    it holds is the training's own, or of an earlier one (`snapshot`).
    """

    trial: TrialConfig
    weights: dict[str, Any]
    state: dict[str, Any]
    """Tensors and plain values only."""
    metrics: dict[str, Any]

    def __call__(self, folder: Path) -> None:
        for name, tensors in ((_WEIGHTS, self.weights), (_STATE, self.state)):
            # By way of Python's files: torch's own do not say that a disk is full.
            with (folder / name).open("wb") as file:
                torch.save(tensors, file)
        (folder / _TRIAL).write_text(write_yaml(self.trial.model_dump(mode="json")))
        (folder / SIGNATURE).write_text(Signature.of(self.trial).model_dump_json(indent=1), encoding="utf-8")
        (folder / METRICS).write_text(json.dumps(self.metrics, indent=1))  # last: where it is, the rest is whole

    def snapshot(self) -> "Save":
        """The same with a copy of all tensors in the CPU's memory: the training may go on."""
        weights, state = _copied((self.weights, self.state))
        return replace(self, weights=weights, state=state)


def _copied(what: Any) -> Any:
    if isinstance(what, torch.Tensor):
        return what.detach().to("cpu", copy=True)
    if isinstance(what, dict):
        same = copy(what)  # a `state_dict` notes the versions of its modules in an attribute
        same.update((key, _copied(value)) for key, value in what.items())
        return same
    if type(what) in (list, tuple):
        return type(what)(map(_copied, what))
    return deepcopy(what)


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint, whole or not."""
    return any((folder / name).is_file() for name in (_WEIGHTS, _STATE, _TRIAL, SIGNATURE, METRICS))


def read_state(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The weights and the state of a checkpoint, on the CPU.

    Raises:
        Damaged: One is missing or damaged.
    """
    return _weights(folder), _saved(folder, _STATE)


def _weights(folder: Path) -> dict[str, Any]:
    held = _saved(folder, _WEIGHTS)
    odd = next((name for name, value in held.items() if not _is_weight(name, value)), None)
    if odd is not None:
        message = f"is a damaged checkpoint: {_WEIGHTS} holds something else than weights: {odd!r}"
        raise Damaged(Problem(message, where=str(folder)))
    return held


def _is_weight(name: Any, value: Any) -> bool:
    """Whether that stands in a `state_dict`: a tensor, or what a module keeps beside (`Module.get_extra_state`)."""
    return type(name) is str and (type(value) is torch.Tensor or name.rpartition(".")[2] == "_extra_state")


def _saved(folder: Path, name: str) -> dict[str, Any]:
    """What `torch.save` wrote, on the CPU. Nothing in it is run.

    Raises:
        Damaged: It is not there, damaged, or holds something else.
    """
    where = str(folder)
    try:
        with (folder / name).open("rb") as file:
            with zipfile.ZipFile(file) as archive:
                spoilt = archive.testzip()  # torch writes checksums and does not look at them
            if spoilt is not None:
                raise zipfile.BadZipFile(f"the checksum of {spoilt} is another one")
            file.seek(0)
            held = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError:  # torch's own message explains how to run the code in it
        message = f"{name} holds more than tensors: loading it could run code, so it is not loaded"
        raise Damaged(Problem(message, where=where)) from None
    except Exception as error:  # what bytes that nobody meant can lead to is in no document of torch's
        why = f"{type(error).__name__}: {str(error).partition('. This is an internal')[0]}"
        raise Damaged(Problem(f"is a damaged checkpoint: {name}: {why}", where=where)) from None
    if not isinstance(held, dict):
        found = f"{name} holds a {type(held).__name__}, not values by name"
        raise Damaged(Problem(f"is a damaged checkpoint: {found}", where=where))
    return held


def read_model(folder: Path, trust: Collection[str] = ()) -> tuple[Signature, nn.Module]:
    """The model of a checkpoint, on the CPU, ready to use: in eval mode, weights loaded; and what it takes and returns.

    Its dataset need not be there, unless an older version wrote the checkpoint.

    Args:
        folder: The checkpoint.
        trust: Code, as ``pkg.module:name``, that may be called to make its model; where an older version wrote the
            checkpoint, its data, too.

    Raises:
        Damaged: The folder is no checkpoint, or a damaged one.
        UserError: It names code that is not trusted.
    """
    _check_whole(folder)
    signature = _signature(folder)
    if signature is None:
        trial = read_trial(folder, trust)
        signature = Signature.of(trial)
    else:
        with without_imports():
            trial = _trial(folder, trust, ("model",))
    weights = _weights(folder)
    image, asked = signature.image, signature.task_outputs
    where_it_is = "tuner.load(..., code=FOLDER) looks for it there, too"
    with _told(folder, f"{_TRIAL} and {SIGNATURE}", is_code=bool(trial.model.user_code), hint=where_it_is):
        trial.model.check(image, asked)
    with _told(folder, _WEIGHTS):
        if not trial.model.user_code:  # memory for a model that is not the one of these weights need not be there
            with torch.device("meta"):
                needed = sum(each.numel() for each in trial.model.build(image, asked).parameters())
            held = sum(value.numel() for value in weights.values() if isinstance(value, torch.Tensor))
            if needed > held:
                raise RuntimeError(f"{_TRIAL} tells of {needed} weights, and {_WEIGHTS} holds {held}")
        model = trial.model.build(image, asked)
        model.load_state_dict(weights)
    return signature, model.eval()


def read_trial(folder: Path, trust: Collection[str] = ()) -> TrialConfig:
    """The trial of a checkpoint, its data ready to be loaded.

    Raises:
        Damaged: The folder is no checkpoint, or a damaged one; or data of the user's own cannot be read.
        UserError: It names code that is not trusted.
    """
    _check_whole(folder)
    return _trial(folder, trust, ("model", "data"))


def _check_whole(folder: Path) -> None:
    missing = [name for name in (_WEIGHTS, _TRIAL, METRICS) if not (folder / name).is_file()]
    if missing:
        raise Damaged(Problem(f"is no checkpoint: {', '.join(missing)} not found", where=str(folder)))


def _trial(folder: Path, trust: Collection[str], called: Sequence[str]) -> TrialConfig:
    """The trial, of which the code of these parts may be called, where it is trusted."""
    with _told(folder, _TRIAL):
        said = parse_yaml((folder / _TRIAL).read_text())
    _check_trusted(TrialConfig.targets_in(said, called), trust, str(folder / _TRIAL))
    hint = ""
    if TrialConfig.targets_in(said, ("data",)) and not (folder / SIGNATURE).is_file():
        hint = f"there is no {SIGNATURE}: without that, the model is built from the data that it was trained on"
    with _told(folder, _TRIAL, is_code=bool(TrialConfig.targets_in(said, called)), hint=hint):
        return TrialConfig.model_validate(said)


def _signature(folder: Path) -> Signature | None:
    """What the checkpoint says of its model; None where an older version wrote it."""
    if not (folder / SIGNATURE).is_file():
        return None
    with _told(folder, SIGNATURE):
        return Signature.model_validate_json((folder / SIGNATURE).read_bytes())


@contextlib.contextmanager
def _told(folder: Path, name: str, *, is_code: bool = False, hint: str = "") -> Iterator[None]:
    """Tell that a file of a checkpoint is damaged; or, of code of the user's own, that it is not here or does not fit.

    Args:
        folder: The checkpoint.
        name: The file that is read meanwhile.
        is_code: Whether code of the user's own is called.
        hint: What else to say of that code.
    """
    try:
        yield
    except (ValidationError, Mistakes) as error:
        problems = _problems(error)
        if is_code:
            told = [
                (f"cannot be loaded: {each.message}", "; ".join(filter(None, (each.hint, hint)))) for each in problems
            ]
        else:
            told = [(f"is a damaged checkpoint: {name}: {each}", "") for each in problems]
        raise Damaged(*(Problem(message, where=str(folder), hint=hint) for message, hint in told)) from None
    except (yaml.YAMLError, OSError, UnicodeDecodeError, RuntimeError) as error:
        raise Damaged(Problem(f"is a damaged checkpoint: {name}: {error}", where=str(folder))) from None


def _problems(error: ValidationError | Mistakes) -> list[Problem]:
    """What is wrong, one by one."""
    if isinstance(error, Mistakes):
        return error.problems
    found = []
    for each in error.errors():
        cause = each.get("ctx", {}).get("error")
        key = ".".join(map(str, each["loc"]))
        found += (
            cause.problems if isinstance(cause, Mistakes) else [Problem(each["msg"].removeprefix("Value error, "), key)]
        )
    return found


def _check_trusted(targets: list[str], trust: Collection[str], where: str) -> None:
    unknown = sorted({*targets} - {*trust})
    if unknown:
        message = f"loading it would run code that it names: {', '.join(unknown)}"
        hint = f"where you know that code, and the arguments that it is given there: trust={unknown}"
        raise UserError(Problem(message, where=where, hint=hint))
