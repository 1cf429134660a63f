"""What a checkpoint says of its model: all that inference needs, so that the dataset need not be there."""

import platform
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator

from tuner.config import Config
from tuner.interfaces import ImageShape, Output
from tuner.train.trial_config import TrialConfig
from tuner.version import __version__

_LARGEST = 2**20
"""No image is as wide, and no output as large: what says so is damaged."""


class Input(Config):
    """Images as the model takes them: float32 (N, channels, height, width) in [0, 1]."""

    channels: int = Field(ge=1, le=_LARGEST)
    """Channels of an image."""
    height: int = Field(ge=1, le=_LARGEST)
    """In pixels."""
    width: int = Field(ge=1, le=_LARGEST)
    """In pixels."""
    layout: Literal["NCHW"] = "NCHW"
    """Order of the dimensions."""
    dtype: Literal["float32"] = "float32"
    """Type of the values."""
    range: tuple[float, float] = (0.0, 1.0)
    """Smallest and largest value."""


class Normalization(Config):
    """Mean and standard deviation of the dataset in [0, 1]. The model normalizes its images itself, if it does."""

    mean: tuple[float, ...]
    """For each channel."""
    std: tuple[float, ...]
    """For each channel."""


class OutputSignature(Config):
    """One output of the model: (N, size)."""

    target: str
    """What it predicts: a target of the dataset."""
    size: int = Field(ge=1, le=_LARGEST)
    """Number of classes, or of values."""
    classes: tuple[str, ...] = ()
    """Names of the classes, by index; empty where they are unknown, or where it predicts values."""
    unit: str | None = None
    """Unit of the values; null for classes."""
    hidden: int | None = Field(None, ge=0, le=_LARGEST)
    """Width of the hidden layer before it, where the task asks for one."""
    log_probabilities: bool = False
    """Whether it ends in a log-softmax."""


class Signature(Config):
    """What inference needs to know of a model."""

    format: Literal[1] = 1
    """Version of this description."""
    input: Input
    """What the model takes."""
    normalization: Normalization
    """Statistics of the images that it was trained on."""
    preprocessing: tuple[dict[str, Any], ...]
    """Steps from an image of the dataset to bytes of the model's size, before they are scaled to [0, 1]."""
    outputs: dict[str, OutputSignature]
    """By head; a model that returns one tensor has one output, named ``""``."""
    versions: dict[str, str]
    """Of the libraries that wrote it."""

    @classmethod
    def of(cls, trial: TrialConfig) -> Self:
        """The signature of a trial's model. It needs the trial's dataset."""
        image, targets = trial.data.image, trial.data.targets
        outputs = {}
        for name, output in trial.task.outputs(targets).items():
            target = trial.task.named_heads[name].target
            outputs[name] = OutputSignature(
                target=target,
                size=output.size,
                classes=targets[target].classes,
                unit=targets[target].unit,
                hidden=output.hidden,
                log_probabilities=output.log_probabilities,
            )
        return cls(
            input=Input(channels=image.channels, height=image.height, width=image.width),
            normalization=Normalization(mean=image.mean, std=image.std),
            preprocessing=tuple(trial.data.preprocessing),
            outputs=outputs,
            versions={"tuner": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        )

    @property
    def image(self) -> ImageShape:
        """The images that the model takes."""
        taken, statistics = self.input, self.normalization
        return ImageShape(taken.channels, taken.height, taken.width, statistics.mean, statistics.std)

    @property
    def task_outputs(self) -> dict[str, Output]:
        """What the task asked of the model, by head."""
        return {name: Output(each.size, each.hidden, each.log_probabilities) for name, each in self.outputs.items()}

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if not len(self.normalization.mean) == len(self.normalization.std) == self.input.channels:
            raise ValueError(f"normalization has not one value for each of {self.input.channels} channels")
        if not self.outputs:
            raise ValueError("outputs has none")
        return self
