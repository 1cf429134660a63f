"""The meters of each kind of target; `tuner.objectives.METRICS` describes what they measure.

The full name of a metric is ``<set>_<head>_<metric>``, such as ``val_digit_accuracy``, or ``<set>_<metric>`` if the
model has a single output.
"""

import torch
from torch import Tensor

from tuner.interfaces import TargetKind
from tuner.tasks.metrics.boxes import AveragePrecision
from tuner.tasks.metrics.classes import Accuracy, Calibration, ClassMetrics, TopFive
from tuner.tasks.metrics.instances import BoxesOfInstances, MaskAveragePrecision
from tuner.tasks.metrics.masks import Boundaries, PixelAccuracy, Regions
from tuner.tasks.metrics.meter import Meter, SumMeter
from tuner.tasks.metrics.multilabel import LabelF1, LabelMetrics
from tuner.tasks.metrics.voc import VOCAveragePrecision

EPOCH_METRICS = ("epoch_seconds", "images_per_second", "learning_rate", "parameters", "latency_ms")
COSTLY_METRICS = ("onnx_latency_ms",)
"""What is measured, and reported, only where an experiment names it."""


class Error(SumMeter):
    """The mean distance between outputs (N, values) and targets (N, values)."""

    names = ("error",)

    def _add(self, sums: Tensor, output: Tensor, target: Tensor) -> None:
        sums += torch.linalg.vector_norm(output - target, dim=1).sum()

    def compute(self) -> dict[str, float]:
        return {"error": self.sums.item() / self.samples}


METERS: dict[TargetKind, tuple[type[Meter], ...]] = {
    "class": (ClassMetrics, TopFive, Calibration),
    "multilabel": (LabelMetrics,),
    "mask": (Regions, Boundaries),
    "boxes": (AveragePrecision, VOCAveragePrecision),
    "instances": (MaskAveragePrecision, BoxesOfInstances),
    "values": (Error,),
}
"""The meters of the validation and test sets for each kind of target."""

TRAINING_METERS: dict[TargetKind, tuple[type[Meter], ...]] = {
    "class": (Accuracy,),
    "multilabel": (LabelF1,),
    "mask": (PixelAccuracy,),
    "boxes": (),
    "instances": (),
    "values": (Error,),
}
"""The meters of the training set, which measure some of the same metrics."""
