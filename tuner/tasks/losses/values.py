"""Losses over values."""

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tuner.tasks.losses.base import Loss


class ValuesLoss(Loss):
    """A loss over values."""

    target_kind = "values"

    def distance(self, output: Tensor, wanted: Tensor, temperature: float) -> Tensor:
        """The loss with the values of the teacher as targets; it has no temperature."""
        return self(output, wanted)


class SmoothL1(ValuesLoss):
    """Smooth L1 (Huber) distance between outputs and values (N, values)."""

    kind: Literal["smooth_l1"] = "smooth_l1"
    beta: float = Field(1.0, gt=0)
    """Distance, in the target's unit, below which the loss is quadratic and above which it is linear."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(output, target, beta=self.beta)

    def measure(self, output: Tensor, target: Tensor) -> Tensor:
        return self(output, target)


class MSE(ValuesLoss):
    """Mean squared error between outputs and values (N, values)."""

    kind: Literal["mse"] = "mse"

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(output, target)

    def measure(self, output: Tensor, target: Tensor) -> Tensor:
        return self(output, target)
