"""The base class of all models."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import nn

from tuner.config import Config
from tuner.errors import Problem
from tuner.interfaces import NO_BOX, ImageShape, Output
from tuner.models.stages import Stages, stages_of
from tuner.process.generators import generators_kept


class Model(Config):
    """A model: it checks whether it fits the images and the task, and builds a module."""

    per_pixel: ClassVar[bool] = False
    """Whether the model can have outputs of each pixel."""
    boxes: ClassVar[bool] = False
    """Whether the model can find objects and their boxes."""
    masks: ClassVar[bool] = False
    """Whether the model can find the masks of objects, too."""

    @property
    def user_code(self) -> list[str]:
        """The user's code that builds the model, as ``pkg.module:name``; empty if the model is one of `tuner`'s own."""
        return []

    @abstractmethod
    def check(self, image: ImageShape, outputs: Mapping[str, Output]) -> None:
        """Raise Mistakes if the model cannot be built for these images and outputs."""

    @abstractmethod
    def build(self, image: ImageShape, outputs: Mapping[str, Output]) -> nn.Module:
        """Build a module that maps images (N, C, H, W) in [0, 1] to the outputs, with new weights."""

    def needs_several(self, image: ImageShape, outputs: Mapping[str, Output]) -> bool:
        """Whether the model cannot be trained on one image at a time, because of its batch normalization."""
        # On the CPU, as modules of the user's need not be able to run on the meta device, and without changing the
        # state of the generators with which a trial trains.
        with generators_kept(), torch.no_grad():
            module = self.build(image, outputs).train()
            no_objects = {False: torch.tensor([[NO_BOX]]), True: torch.zeros(1, image.height, image.width).int()}
            targets = {name: no_objects[output.masks] for name, output in outputs.items() if output.boxes}
            try:
                module(torch.zeros(1, image.channels, image.height, image.width), *([targets] if targets else []))
            except Exception as error:  # of a module of the user's: what else is wrong, its training tells
                return "more than 1 value per channel" in str(error)
        return False

    @property
    def is_available(self) -> bool:
        """Whether the pretrained weights are on this node, or there are none; if not, `prepare` downloads them."""
        return True

    @property
    def is_pretrained(self) -> bool:
        """Whether a training begins with pretrained weights."""
        return False

    def prepare(self, image: ImageShape, outputs: Mapping[str, Output]) -> tuple[Self, str]:
        """Make the pretrained weights available on this node.

        Returns:
            The model, which has other weights if these cannot be had, and a message for the user, or ``""``.

        Raises:
            UserError: The weights do not fit, or are missing and cannot be downloaded.
        """
        return self, ""

    def load_pretrained(self, module: nn.Module) -> None:
        """Load the pretrained weights, if there are any, into what `build` returned. A new training begins with it."""

    @property
    def has_stages(self) -> bool:
        """Whether it is known which parameters belong to the head, and how deep the others lie."""
        return True

    def stages_in(self, module: nn.Module) -> Stages | None:
        """The stages of what `build` returned; None if they are unknown."""
        return stages_of(module.get_submodule("trunk"), "trunk.")

    def begin_epoch(self, module: nn.Module, epoch: int) -> None:
        """Put what `build` returned into training mode for an epoch, from 1; frozen layers stay in eval mode."""
        module.train()

    def why_not_for(self, epochs: int) -> Problem | None:
        """What is wrong with the model in a training of so many epochs; None if nothing is."""
        return None
