"""Losses: pure functions of one output and one target.

Calling a loss returns the training loss. `measure` returns the reported one, which ignores label smoothing, so that
trials with different smoothing can be compared. Both are scalars: means over the samples.
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tuner.config import Config


class CrossEntropy(Config):
    """Cross-entropy between logits (N, classes) and class indices (N,)."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the probability of the true class that is spread over all classes."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target, label_smoothing=self.label_smoothing)

    def measure(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target)


class NLL(Config):
    """Negative log likelihood of class indices (N,) under log-probabilities (N, classes)."""

    kind: Literal["nll"] = "nll"

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(output, target)

    def measure(self, output: Tensor, target: Tensor) -> Tensor:
        return self(output, target)


class SmoothL1(Config):
    """Smooth L1 (Huber) distance between outputs and values (N, values)."""

    kind: Literal["smooth_l1"] = "smooth_l1"
    beta: float = Field(1.0, gt=0)
    """Distance, in the target's unit, below which the loss is quadratic and above which it is linear."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(output, target, beta=self.beta)

    def measure(self, output: Tensor, target: Tensor) -> Tensor:
        return self(output, target)


class MSE(Config):
    """Mean squared error between outputs and values (N, values)."""

    kind: Literal["mse"] = "mse"

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(output, target)

    def measure(self, output: Tensor, target: Tensor) -> Tensor:
        return self(output, target)


ClassLoss = CrossEntropy | NLL
ValueLoss = SmoothL1 | MSE
LossConfig = Annotated[ClassLoss | ValueLoss, Field(discriminator="kind")]
