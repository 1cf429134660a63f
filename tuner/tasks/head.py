"""A head: an output of a model, with its target, its loss and the meter of its metrics."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Self, get_args

from pydantic import Field
from torch import Tensor

from tuner.config import Config
from tuner.errors import Mistakes, Problem, allowed
from tuner.interfaces import Output, Target, TargetKind
from tuner.interfaces.placement import Placement
from tuner.tasks.losses import AnyLoss, LossConfig
from tuner.tasks.metrics import METERS, TRAINING_METERS
from tuner.tasks.metrics.meter import ByClass, ErrorKind, Meter, SumMeter
from tuner.tasks.metrics.samples import Array
from tuner.tasks.predictions import PREDICTIONS
from tuner.tasks.predictions.base import Options, Prediction

_TASKS: dict[TargetKind, str] = {
    "class": "task: {kind: classification}, or as a head of multitask",
    "multilabel": "task: {kind: multilabel}, or as a head of multitask",
    "mask": "task: {kind: semantic_segmentation}, or as a head of multitask",
    "boxes": "task: {kind: detection}, or as a head of multitask",
    "instances": "task: {kind: instance_segmentation}, or as a head of multitask",
    "values": "a head of task: {kind: multitask}",
}
"""What predicts a target of each kind."""


class Head(Config):
    """An output of a model, with its target and its loss."""

    target: str
    """Target of the dataset that is predicted, such as ``label`` or ``position``."""
    loss: LossConfig
    """Loss: cross_entropy, focal, nll for a class; binary_cross_entropy, binary_focal for several; smooth_l1, mse for
    values; pixel_cross_entropy, pixel_focal, pixel_dice for a mask; detector for boxes;
    mask_detector for objects with masks."""
    hidden: int | None = Field(None, ge=0, le=2**20)
    """Width of the hidden layer before the output; 0 for none, null to leave it to the model."""
    weight: float = Field(1.0, ge=0)
    """Weight of this head's loss in the training loss."""

    def metrics(self, size: int | None) -> tuple[str, ...]:
        """Names of the head's metrics on the validation and test sets.

        Args:
            size: Number of its outputs, on which they depend; None if it is unknown, for all that there may be.
        """
        meters = [meter for meter in METERS[self.loss.target_kind] if size is None or size >= meter.least_size]
        own = () if self.loss.is_of_model else LossMeter.names
        return (*own, *(name for meter in meters for name in meter.names))

    @property
    def train_metrics(self) -> tuple[str, ...]:
        """Names of the head's metrics on the training set."""
        return ("loss", *(name for meter in TRAINING_METERS[self.loss.target_kind] for name in meter.names))

    def output(self, targets: Mapping[str, Target]) -> Output:
        """The output that the head needs from the model.

        Raises:
            Mistakes: The dataset has no such target, or the loss does not fit the target.
        """
        if self.target not in targets:
            message = f"the data has no target {self.target!r}"
            hint = allowed(self.target, targets)
            if self.target == "position":
                hint += "; data.canvas gives it a position"
            if self.target == "instances":
                hint += "; data.instances: true reads the masks of objects, where the data have such a field"
            raise Mistakes(Problem(message, key="target", hint=hint))
        target = targets[self.target]
        if target.kind != self.loss.target_kind:
            losses = ", ".join(each().kind for each in get_args(AnyLoss) if each.target_kind == target.kind)
            message = f"{self.loss.kind} does not fit the target {self.target!r}, which is {target}"
            hint = f"allowed: {losses}, with {_TASKS[target.kind]}"
            raise Mistakes(Problem(message, key="loss", hint=hint))
        self.loss.check(target)
        return Output(
            target.size,
            self.hidden,
            self.loss.log_probabilities,
            target.per_pixel,
            boxes=target.boxes or target.instances,
            masks=target.instances,
            classes=target.classes if target.boxes or target.instances else (),
        )

    def meter(self, *, training: bool) -> "HeadMeter":
        """Return a new meter of the `metrics`, or of the `train_metrics`."""
        meters = [meter() for meter in (TRAINING_METERS if training else METERS)[self.loss.target_kind]]
        if self.loss.is_of_model and not training:  # the model computes it in training mode alone
            return HeadMeter(*meters)
        return HeadMeter(LossMeter(self.loss), *meters)

    @property
    def prediction(self) -> type[Prediction]:
        """What the head says of an image."""
        return PREDICTIONS[self.loss.target_kind]

    def predictions(
        self, output: Tensor, target: Target, placements: Sequence[Placement], options: Options
    ) -> Iterator[Prediction]:
        """Read the head's output (N, ...) for a batch, one image after another; see `Prediction.of`."""
        return self.prediction.of(output, target, placements, options)


class LossMeter(SumMeter):
    """The loss as it is reported: the mean over the samples.

    Args:
        loss: The loss.
    """

    names = ("loss",)

    def __init__(self, loss: AnyLoss) -> None:
        super().__init__()
        self._loss = loss

    def _add(self, sums: Tensor, output: Tensor, target: Tensor) -> None:
        sums += len(target) * self._loss.measure(output, target)

    def compute(self) -> dict[str, float]:
        return {"loss": self.sums.item() / self.samples}


class HeadMeter:
    """The metrics of a head.

    Args:
        meters: The meters that compute them.
    """

    def __init__(self, *meters: Meter) -> None:
        self._meters = meters

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch of outputs (N, size) and their targets, as `tuner.interfaces.TargetKind` describes them."""
        for meter in self._meters:
            meter.update(output, target)

    @property
    def can_be_recorded(self) -> bool:
        """Whether all meters have `add`, `count` and `reset`."""
        return all(meter.can_be_recorded for meter in self._meters)

    def add(self, output: Tensor, target: Tensor) -> None:
        """Add a batch as `update` does, without counting its samples; see `Meter.add`."""
        for meter in self._meters:
            meter.add(output, target)

    def count(self, samples: int) -> None:
        """Count samples that `add` has added, or a record of it."""
        for meter in self._meters:
            meter.count(samples)

    def reset(self) -> None:
        """Forget all samples, in place."""
        for meter in self._meters:
            meter.reset()

    def merge(self, other: Self) -> None:
        """Add the samples of another meter, such as that of another process."""
        for meter, others in zip(self._meters, other._meters, strict=True):
            meter.merge(others)

    def compute(self) -> dict[str, float]:
        """Return the head's metrics of all samples so far by name."""
        return {name: value for meter in self._meters for name, value in meter.compute().items()}

    def by_class(self) -> ByClass:
        """Return the metrics of single classes for all samples so far; empty if there are no classes."""
        return {name: values for meter in self._meters for name, values in meter.by_class().items()}

    def errors(self) -> list[ErrorKind]:
        """Return the kinds of errors in all samples so far; empty if they are not told apart."""
        return [kind for meter in self._meters for kind in meter.errors()]

    def keep_samples(self) -> None:
        """Keep from now on what each sample adds; see `Meter.keep_samples`."""
        for meter in self._meters:
            meter.keep_samples()

    def weighted(self, counts: Array) -> "HeadMeter":
        """A meter that has seen each sample another number of times; see `Meter.weighted`."""
        return HeadMeter(*(meter.weighted(counts) for meter in self._meters))

    @property
    def right(self) -> Array | None:
        """Whether the answer for each sample is right; None if it is more than right or wrong."""
        return next((right for meter in self._meters if (right := meter.right) is not None), None)

    @property
    def confusion(self) -> list[list[int]] | None:
        """The confusion matrix: rows are true classes, columns predicted ones; None if it is not measured."""
        matrices = (meter.confusion for meter in self._meters)
        return next((matrix for matrix in matrices if matrix is not None), None)
