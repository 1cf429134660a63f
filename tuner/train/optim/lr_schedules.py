"""Learning-rate schedules. To add one, write a class here and add it to the union.

A schedule multiplies the learning rate of each group of parameters, which is its peak, by the same factor.
"""

import math
from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import optim
from torch.optim import lr_scheduler

from tuner.config import Config, Tunable

Schedule = lr_scheduler.LRScheduler


_MOMENTUM_AT_PEAK = 0.85 / 0.95  # lower end of the range that Smith proposes, as a share of its upper end


class _Schedule(Config):
    cycles_momentum: ClassVar[bool] = False
    """Whether it changes more than learning rates."""


class _Warm(_Schedule):
    """A schedule with a linear warm-up."""

    # Goyal et al. (2017) warm up in 5 of 90 epochs.
    warmup: Annotated[float, Tunable({"uniform": [0, 0.1]}, is_share_of_epochs=True)] = Field(0.0, ge=0)
    """Epochs in which the learning rate rises linearly from nearly 0 to its peak; may be a fraction."""

    @abstractmethod
    def after_warmup(self, optimizer: optim.Optimizer, steps: int, steps_per_epoch: int) -> Schedule:
        """Build the schedule of the `steps` batches after the warm-up."""

    def build(self, optimizer: optim.Optimizer, epochs: int, steps_per_epoch: int) -> Schedule:
        """Build a schedule that is stepped after each batch, for `epochs` epochs of `steps_per_epoch` batches."""
        total = epochs * steps_per_epoch
        warmup = min(round(self.warmup * steps_per_epoch), total)
        after = self.after_warmup(optimizer, max(1, total - warmup), steps_per_epoch)
        if warmup == 0:
            return after
        rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
        return lr_scheduler.SequentialLR(optimizer, [rise, after], milestones=[warmup])


class Constant(_Warm):
    """A constant learning rate."""

    kind: Literal["constant"] = "constant"

    def after_warmup(self, optimizer: optim.Optimizer, steps: int, steps_per_epoch: int) -> Schedule:
        return lr_scheduler.ConstantLR(optimizer, factor=1.0)


class Cosine(_Warm):
    """Cosine annealing (Loshchilov and Hutter, 2017)."""

    kind: Literal["cosine"] = "cosine"
    final: float = Field(0.0, ge=0, le=1)
    """Learning rate at the end, as a share of the peak."""

    def after_warmup(self, optimizer: optim.Optimizer, steps: int, steps_per_epoch: int) -> Schedule:
        return lr_scheduler.LambdaLR(optimizer, lambda step: _half_cosine(step / steps, self.final))


def _half_cosine(progress: float, final: float) -> float:
    """A factor that falls from 1 to `final` as `progress` goes from 0 to 1."""
    return final + (1 - final) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


class CosineRestarts(_Warm):
    """Cosine annealing that begins again at the peak (SGDR: Loshchilov and Hutter, 2017)."""

    kind: Literal["cosine_restarts"] = "cosine_restarts"
    period: int = Field(5, ge=1)
    """Epochs of the first period."""
    growth: int = Field(2, ge=1, le=100)
    """Factor by which each period is longer than the one before."""
    final: float = Field(0.0, ge=0, le=1)
    """Learning rate at the end of a period, as a share of the peak."""

    def after_warmup(self, optimizer: optim.Optimizer, steps: int, steps_per_epoch: int) -> Schedule:
        def factor(step: int) -> float:
            period = self.period * steps_per_epoch
            while step >= period:
                step, period = step - period, period * self.growth
            return _half_cosine(step / period, self.final)

        return lr_scheduler.LambdaLR(optimizer, factor)


class Step(_Warm):
    """Multiply the learning rate by a factor every few epochs."""

    kind: Literal["step"] = "step"
    every: int = Field(1, ge=1)
    """Epochs between two steps."""
    factor: float = Field(0.1, gt=0, le=1)
    """Factor by which the learning rate is multiplied at each step."""

    def after_warmup(self, optimizer: optim.Optimizer, steps: int, steps_per_epoch: int) -> Schedule:
        return lr_scheduler.StepLR(optimizer, step_size=self.every * steps_per_epoch, gamma=self.factor)


class OneCycle(_Schedule):
    """Raise the learning rate to its peak, then lower it to nearly 0 (Smith and Topin, 2018).

    The momentum (or beta1, of optimizers that have one) changes inversely: from its configured
    value down to 0.85/0.95 of it, and back.
    """

    cycles_momentum: ClassVar[bool] = True

    kind: Literal["one_cycle"] = "one_cycle"
    rise: Annotated[float, Tunable({"uniform": [0.1, 0.45]})] = Field(0.3, gt=0, lt=1)
    """Share of all batches in which the learning rate rises."""
    start: float = Field(0.04, gt=0, le=1)
    """Learning rate at the start, as a share of the peak."""

    def build(self, optimizer: optim.Optimizer, epochs: int, steps_per_epoch: int) -> Schedule:
        """Build a schedule that is stepped after each batch, for `epochs` epochs of `steps_per_epoch` batches."""
        group = optimizer.param_groups[0]
        momentum = group["betas"][0] if "betas" in group else group["momentum"]
        total = epochs * steps_per_epoch + 1  # the schedule is also stepped after the last batch
        # torch divides by the number of rising steps minus 1, which must not be 0, even for a single batch.
        shortest = min(2, (total + 1) / 2) / total
        return lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[each["lr"] for each in optimizer.param_groups],
            total_steps=total,
            pct_start=max(self.rise, shortest),
            div_factor=1 / self.start,
            cycle_momentum=momentum > 0,
            base_momentum=momentum * _MOMENTUM_AT_PEAK,  # torch's default would ignore the configured momentum
            max_momentum=momentum,
        )


ScheduleConfig = Annotated[Constant | Cosine | CosineRestarts | Step | OneCycle, Field(discriminator="kind")]
