"""A head: an output of a model, with its target, its loss and its metrics."""

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor

from tuner.config import Config
from tuner.errors import Mistakes, Problem, allowed
from tuner.interfaces import Output, Target
from tuner.tasks.losses import NLL, ClassLoss, LossConfig
from tuner.tasks.metrics import CLASS_METRICS, VALUE_METRICS, accuracy, classification, confusion, regression


class Head(Config):
    """An output of a model, with its target and its loss."""

    target: str
    """Target of the dataset that is predicted, such as ``label`` or ``position``."""
    loss: LossConfig
    """Loss: cross_entropy or nll for classes, smooth_l1 or mse for values."""
    hidden: int | None = Field(None, ge=0, le=2**20)
    """Width of the hidden layer before the output; 0 for none, null to leave it to the model."""
    weight: float = Field(1.0, ge=0)
    """Weight of this head's loss in the training loss."""

    @property
    def is_class(self) -> bool:
        """Whether the head predicts a class."""
        return isinstance(self.loss, ClassLoss)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the head's metrics on the validation and test sets."""
        return ("loss", *(CLASS_METRICS if self.is_class else VALUE_METRICS))

    @property
    def train_metrics(self) -> tuple[str, ...]:
        """Names of the head's metrics on the training set."""
        return ("loss", "accuracy" if self.is_class else "error")

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
            raise Mistakes(Problem(message, key="target", hint=hint))
        target = targets[self.target]
        if target.is_class != self.is_class:
            losses = "cross_entropy, nll" if target.is_class else "smooth_l1, mse"
            message = f"{self.loss.kind} does not fit the target {self.target!r}, which is {target}"
            raise Mistakes(Problem(message, key="loss", hint=f"allowed: {losses}"))
        return Output(target.size, self.hidden, log_probabilities=isinstance(self.loss, NLL))

    def measure(self, output: Tensor, target: Tensor, *, training: bool) -> dict[str, float]:
        """Compute the `metrics`, or the `train_metrics`, from the outputs and targets of all samples of a set."""
        if not self.is_class:
            quality = regression(output, target)
        elif training:
            quality = {"accuracy": accuracy(output, target)}
        else:
            quality = classification(output, target)
        return {"loss": self.loss.measure(output, target).item(), **quality}

    def confusion(self, output: Tensor, target: Tensor) -> list[list[int]]:
        """The confusion matrix of a head that predicts classes: rows are true classes, columns predicted ones."""
        return confusion(output, target)
