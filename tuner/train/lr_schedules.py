"""Learning-rate schedules. A new one is a class here and a name in the union."""

from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import Field
from torch import optim
from torch.optim import lr_scheduler

from tuner.config import Config

Schedule = lr_scheduler.LRScheduler


_MOMENTUM_AT_PEAK = 0.85 / 0.95  # Smith's range, as a share of its upper end


class _Warm(Config):
    """A schedule that steps once a batch, after a linear warm-up from nearly nothing."""

    warmup: float = Field(0.0, ge=0)
    """Epochs over which the learning rate rises linearly to its peak; may be a fraction."""

    @abstractmethod
    def after_warmup(self, optimizer: optim.Optimizer, steps: int, steps_per_epoch: int) -> Schedule:
        """The schedule of the `steps` batches that follow the warm-up."""

    def build(self, optimizer: optim.Optimizer, epochs: int, steps_per_epoch: int) -> Schedule:
        """A schedule to step once a batch, for `epochs` epochs of `steps_per_epoch` batches."""
        total = epochs * steps_per_epoch
        warmup = min(round(self.warmup * steps_per_epoch), total)
        after = self.after_warmup(optimizer, max(1, total - warmup), steps_per_epoch)
        if warmup == 0:
            return after
        rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
        return lr_scheduler.SequentialLR(optimizer, [rise, after], milestones=[warmup])


class Constant(_Warm):
    """The same learning rate all the way."""

    kind: Literal["constant"] = "constant"

    def after_warmup(self, optimizer: optim.Optimizer, steps: int, steps_per_epoch: int) -> Schedule:
        return lr_scheduler.ConstantLR(optimizer, factor=1.0)


class Cosine(_Warm):
    """Down along half a cosine (Loshchilov and Hutter, 2017)."""

    kind: Literal["cosine"] = "cosine"
    final: float = Field(0.0, ge=0, le=1)
    """Learning rate at the end, as a share of the peak."""

    def after_warmup(self, optimizer: optim.Optimizer, steps: int, steps_per_epoch: int) -> Schedule:
        eta_min = self.final * optimizer.param_groups[0]["lr"]
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=eta_min)


class Step(_Warm):
    """Down by a factor every few epochs."""

    kind: Literal["step"] = "step"
    every: int = Field(1, ge=1)
    """Epochs between two steps."""
    factor: float = Field(0.1, gt=0, le=1)
    """What the learning rate is multiplied with."""

    def after_warmup(self, optimizer: optim.Optimizer, steps: int, steps_per_epoch: int) -> Schedule:
        return lr_scheduler.StepLR(optimizer, step_size=self.every * steps_per_epoch, gamma=self.factor)


class OneCycle(Config):
    """Up to the peak and down to nearly nothing (Smith and Topin, 2018).

    The momentum (or beta1) moves the other way: from its own value down to 0.85/0.95 of it, and back.
    """

    kind: Literal["one_cycle"] = "one_cycle"
    rise: float = Field(0.3, gt=0, lt=1)
    """Share of all batches in which the learning rate rises."""
    start: float = Field(0.04, gt=0, le=1)
    """Learning rate at the start, as a share of the peak."""

    def build(self, optimizer: optim.Optimizer, epochs: int, steps_per_epoch: int) -> Schedule:
        """A schedule to step once a batch, for `epochs` epochs of `steps_per_epoch` batches."""
        group = optimizer.param_groups[0]
        momentum = group["betas"][0] if "betas" in group else group["momentum"]
        total = epochs * steps_per_epoch + 1  # the last batch is followed by a step too
        # torch divides by the length of the rise: it has to last a batch, or half of an only one.
        shortest = min(2, (total + 1) / 2) / total
        return lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=group["lr"],
            total_steps=total,
            pct_start=max(self.rise, shortest),
            div_factor=1 / self.start,
            cycle_momentum=momentum > 0,
            base_momentum=momentum * _MOMENTUM_AT_PEAK,  # torch's own range would ignore the momentum that was set
            max_momentum=momentum,
        )


ScheduleConfig = Annotated[Constant | Cosine | Step | OneCycle, Field(discriminator="kind")]
