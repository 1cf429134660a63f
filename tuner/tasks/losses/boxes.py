"""The loss over boxes, which the detector computes itself: how it assigns boxes to its outputs is part of it."""

from typing import ClassVar, Literal

from torch import Tensor

from tuner.interfaces import TargetKind
from tuner.tasks.losses.base import Loss


class OfModel(Loss):
    """The sum of the terms of a model's own loss, (N, T)."""

    is_of_model: ClassVar[bool] = True

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return output.sum(dim=1).mean()

    def measure(self, output: Tensor, target: Tensor) -> Tensor:
        return self(output, target)

    def distance(self, output: Tensor, wanted: Tensor, temperature: float) -> Tensor:
        raise NotImplementedError("a detector's outputs in training mode are losses; TrialConfig refuses a teacher")


class Detector(OfModel):
    """The loss of a detector: the sum of its terms, such as those of classes and of boxes."""

    target_kind: ClassVar[TargetKind] = "boxes"
    kind: Literal["detector"] = "detector"


class MaskDetector(OfModel):
    """The loss of a detector of objects with masks: the sum of its terms."""

    target_kind: ClassVar[TargetKind] = "instances"
    kind: Literal["mask_detector"] = "mask_detector"
