"""The signature of a model: everything that inference needs to know without the dataset."""

import platform
from math import prod
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from tuner.config import Config
from tuner.interfaces import ImageShape, Output, Target
from tuner.interfaces.instances import mask_sides
from tuner.train.trial_config import TrialConfig
from tuner.version import __version__

_LARGEST = 2**20
"""Larger images or outputs are taken for damage."""


class Input(Config):
    """The input of the model: images, float32 (N, channels, height, width) in [0, 1]."""

    channels: int = Field(ge=1, le=_LARGEST)
    """Number of channels."""
    height: int = Field(ge=1, le=_LARGEST)
    """Height in pixels."""
    width: int = Field(ge=1, le=_LARGEST)
    """Width in pixels."""
    layout: Literal["NCHW"] = "NCHW"
    """Order of the dimensions."""
    dtype: Literal["float32"] = "float32"
    """Type of the values."""
    range: tuple[float, float] = (0.0, 1.0)
    """Smallest and largest value."""


class Normalization(Config):
    """Statistics of the training images in [0, 1]. The model takes images that are not normalized."""

    mean: tuple[float, ...]
    """Mean of each channel."""
    std: tuple[float, ...]
    """Standard deviation of each channel."""


class OutputSignature(Config):
    """An output of the model: (N, size), (N, size, height, width) if it is one of each pixel, or (N, K, 6) for boxes.

    Each row of boxes is an object that was found, the surest first: left, top, right and bottom edge in pixels of the
    input, score in [0, 1] and index of the class, which is -1 in the rows that are left.
    """

    target: str
    """Target of the dataset that it predicts."""
    size: int = Field(ge=1, le=_LARGEST)
    """Number of classes, or of values."""
    classes: tuple[str, ...] = ()
    """Names of the classes, by index; empty if they are unknown or the output predicts values."""
    unit: str | None = None
    """Unit of the values; null for classes."""
    multilabel: bool = False
    """Whether an image may have any number of the classes: then the output has a logit for each of them."""
    per_pixel: bool = False
    """Whether each pixel has values of its own, and not the image."""
    boxes: bool = False
    """Whether it is the objects that are found, each with a class and a box, and not values of the image."""
    masks: bool = False
    """Whether each of these objects has a mask behind its other values: probabilities, row by row."""
    ids: tuple[int, ...] = ()
    """The number that the dataset's files have for each class, by its index, as those of COCO; empty for none."""
    hidden: int | None = Field(None, ge=0, le=_LARGEST)
    """Width of the hidden layer before it, if the task sets one."""
    log_probabilities: bool = False
    """Whether it ends in a log-softmax."""

    @property
    def as_target(self) -> Target:
        """What it predicts, as the dataset had it."""
        return Target(
            self.size,
            self.unit,
            self.classes,
            self.multilabel,
            self.per_pixel,
            boxes=self.boxes and not self.masks,
            instances=self.boxes and self.masks,
            ids=self.ids,
        )

    def specimen(self, height: int, width: int) -> Tensor:
        """Such an output for one image of this size, in which something is found: for what is said of outputs.

        Args:
            height: Height of the input in pixels.
            width: Its width.
        """
        if not self.boxes:
            return torch.ones(1, self.size, *((height, width) if self.per_pixel else ()))
        mask = torch.ones(prod(mask_sides(height, width)) if self.masks else 0)
        return torch.cat([torch.tensor([0.0, 0.0, width, height, 1.0, 0.0]), mask]).view(1, 1, -1)

    @property
    def predicts(self) -> str:
        """What it predicts, in words."""
        if self.unit:
            return f"values in {self.unit}"
        if self.per_pixel:
            return "one class for each pixel"
        if self.boxes:
            return "objects with boxes and masks" if self.masks else "objects with boxes"
        return "any number of classes" if self.multilabel else "one class"


class Signature(Config):
    """Inputs and outputs of a model."""

    format: Literal[1] = 1
    """Version of this format."""
    input: Input
    """Input of the model."""
    normalization: Normalization
    """Statistics of the training images."""
    preprocessing: tuple[dict[str, Any], ...]
    """Steps that turn an image of the dataset into bytes of the model's input size, before scaling to [0, 1]."""
    outputs: dict[str, OutputSignature]
    """Outputs by head; the only output of a model that returns a tensor is named ``""``."""
    versions: dict[str, str]
    """Versions of the libraries that wrote the signature."""
    files: str = ""
    """Digest of the user's files that the model was trained on and validated with; empty if unknown."""

    @classmethod
    def of(cls, trial: TrialConfig) -> Self:
        """The signature of a trial's model; this needs the trial's dataset."""
        image, targets = trial.data.image, trial.data.targets
        outputs = {}
        for name, output in trial.task.outputs(targets).items():
            target = trial.task.named_heads[name].target
            outputs[name] = OutputSignature(
                target=target,
                size=output.size,
                classes=targets[target].classes,
                unit=targets[target].unit,
                multilabel=targets[target].multilabel,
                per_pixel=output.per_pixel,
                boxes=output.boxes,
                masks=output.masks,
                ids=targets[target].ids,
                hidden=output.hidden,
                log_probabilities=output.log_probabilities,
            )
        return cls(
            input=Input(channels=image.channels, height=image.height, width=image.width),
            normalization=Normalization(mean=image.mean, std=image.std),
            preprocessing=tuple(trial.data.preprocessing),
            outputs=outputs,
            versions={"tuner": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
            files=trial.data.files_digest,
        )

    @property
    def image(self) -> ImageShape:
        """The images that the model takes."""
        size, statistics = self.input, self.normalization
        return ImageShape(size.channels, size.height, size.width, statistics.mean, statistics.std)

    @property
    def task_outputs(self) -> dict[str, Output]:
        """The outputs as the task requested them from the model, by head."""
        return {
            name: Output(each.size, each.hidden, each.log_probabilities, each.per_pixel, each.boxes, each.masks)
            for name, each in self.outputs.items()
        }

    @property
    def targets(self) -> dict[str, Target]:
        """What each head predicts, by head."""
        return {name: each.as_target for name, each in self.outputs.items()}

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if not len(self.normalization.mean) == len(self.normalization.std) == self.input.channels:
            raise ValueError(f"normalization must have one value for each of {self.input.channels} channels")
        if not self.outputs:
            raise ValueError("outputs is empty")
        return self
