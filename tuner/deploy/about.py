"""What a checkpoint says of its model, which is all that inference needs beside the model itself."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch

from tuner.data.decoding import Form
from tuner.data.placing import form_of
from tuner.formatting import counted
from tuner.tasks import TaskConfig
from tuner.tasks.predictions.base import Prediction
from tuner.train.checkpoint import METRICS
from tuner.train.device import Precision, autocast_dtype
from tuner.train.signature import OutputSignature, Signature
from tuner.train.trial_config import TrialConfig

_SHOWN = 5
"""Most classes, and most metrics, that are named."""


@dataclass(frozen=True)
class About:
    """What is known of a model.

    Args:
        source: What it was loaded from, as the user wrote it; empty if MLflow has loaded it.
        signature: Its inputs and outputs.
        task: The task that it was trained for.
        precision: The precision in which it was trained, and measured.
        kind: What it is, such as ``cnn``.
        user_code: The user's code that builds it, as ``pkg.module:name``.
        metrics: The metrics of the epoch of its checkpoint.
        trial: The trial that trained it, as its checkpoint has it.
    """

    source: str
    signature: Signature
    task: TaskConfig
    precision: Precision
    kind: str
    user_code: tuple[str, ...]
    metrics: dict[str, Any]
    trial: TrialConfig

    @classmethod
    def of(cls, source: str, folder: Path, signature: Signature, trial: TrialConfig) -> Self:
        """What a checkpoint in a folder says."""
        kind = " ".join(filter(None, (trial.model.kind, getattr(trial.model, "name", None), *trial.model.user_code)))
        code = tuple(trial.model.user_code)
        return cls(source, signature, trial.task, trial.precision, kind, code, _metrics(folder), trial)

    @cached_property
    def form(self) -> Form:
        """The form to which images are brought, as the dataset brought its validation images to it."""
        size = self.signature.input
        return form_of(self.signature.preprocessing, size.channels, size.height, size.width)

    @property
    def predictions(self) -> dict[str, type[Prediction]]:
        """What each head says of an image, by head."""
        return {name: head.prediction for name, head in self.task.named_heads.items()}

    def dtype(self, device: torch.device) -> torch.dtype:
        """The data type in which the validation set was measured on such a device."""
        return autocast_dtype(self.precision, device)

    def described(self, parameters: int, device: torch.device) -> str:
        """The model in a few lines, for a person.

        Args:
            parameters: The number of its parameters.
            device: The device that it is on.
        """
        size, form = self.signature.input, self.form
        shape = f"{size.channels}, {size.height}, {size.width}"
        facts = {
            "model": f"{self.kind}, {counted(parameters, 'parameter')}, on {device}",
            "predicts": "; ".join(_output(name, each) for name, each in self.signature.outputs.items()),
            "measured": ", ".join(self._measured) or "nothing is recorded",
            "predict": f"takes files, PIL images, arrays, tensors; resizes them to {form.width}x{form.height} "
            f"({form.resize})",
            "call": f"takes float32 (N, {shape}) in [0, 1]",
        }
        loaded = f"tuner.load({self.source!r})" if self.source else "a registered model"
        lines = [loaded, *(f"  {name:<9} {text}" for name, text in facts.items())]
        return "\n".join(lines)

    @property
    def _measured(self) -> list[str]:
        numbers = {
            name: value
            for name, value in self.metrics.items()
            if name.startswith("val_") and isinstance(value, int | float)
        }
        texts = [f"{name} {value:.4g}" for name, value in list(numbers.items())[:_SHOWN]]
        return [*texts, f"after epoch {self.metrics['epoch']}"] if texts and "epoch" in self.metrics else texts


def _metrics(folder: Path) -> dict[str, Any]:
    """The metrics of a checkpoint; none if they cannot be read: a model does not need them."""
    try:
        found = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _output(name: str, output: OutputSignature) -> str:
    """What a head predicts, in words."""
    classes = output.classes
    more = f", and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else ""
    of = f" of {output.size}" + (f": {', '.join(classes[:_SHOWN])}{more}" if classes else "")
    text = output.predicts + ("" if output.unit else of)
    return f"{name}: {text}" if name else text
