"""Distillation: a model learns from the outputs of a trained one beside its targets (Hinton et al., 2015)."""

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from tuner.config import Config
from tuner.interfaces import Batch, Model, Outputs
from tuner.tasks.base import Task, TaskMeter


class Distillation(Config):
    """Learn from the outputs of a trained model, the teacher, beside the targets.

    The teacher sees the images that the model sees, augmented and mixed, and normalizes them itself. It has the same
    outputs, for images of the same shape. A job keeps a copy of it and uses that when it is resumed.
    """

    teacher: str = Field(min_length=1)
    """The teacher: NAME, NAME@ALIAS, models:/NAME/VERSION, the id of a job or run, or a checkpoint's folder."""
    temperature: float = Field(4.0, gt=0, le=100)
    """What the logits of both are divided by: the higher, the more the classes that are not the largest count."""
    alpha: float = Field(0.5, gt=0, le=1)
    """Share of the distance to the teacher in the training loss; the rest is the loss of the task."""


@dataclass(frozen=True)
class Distilled:
    """A task whose training loss is a share of the distance to a teacher's outputs.

    Args:
        task: The task, whose metrics are measured.
        config: The settings.
        teacher: The teacher in eval mode, on the device of the batches.
    """

    task: Task
    config: Distillation
    teacher: Model

    def training_loss(self, model: Model, batch: Batch) -> tuple[Tensor, Outputs]:
        """Compute the loss as `Task.training_loss` does."""
        loss, outputs = self.task.training_loss(model, batch)
        with torch.no_grad():
            wanted = self.task.predict(self.teacher, batch)
        distance = self.task.distance(outputs, wanted, self.config.temperature)
        return torch.lerp(loss, distance, self.config.alpha), outputs

    def meter(self, *, training: bool = False) -> TaskMeter:
        """Return a new meter of the task."""
        return self.task.meter(training=training)
