"""One step of the optimizer, on one batch."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn, optim

from tuner.interfaces import Batch, Model
from tuner.tasks.base import Task, TaskMeter
from tuner.train.distillation import Distilled
from tuner.train.ema import AveragedWeights
from tuner.train.parallel.ranks import ONE_RANK, Ranks
from tuner.train.step.rates import Rates


@dataclass(frozen=True)
class Optimization:
    """What changes the weights of a model by its gradients.

    Args:
        optimizer: The optimizer.
        rates: Its learning rates.
        scaler: Scales the loss, so that gradients in float16 do not vanish.
        clip_norm: Norm to which the gradient is clipped; None for no clipping.
        average: The moving average of the weights; None for none.
    """

    optimizer: optim.Optimizer
    rates: Rates
    scaler: torch.amp.GradScaler
    clip_norm: float | None
    average: AveragedWeights | None


class Step:
    """Computes the loss and the gradients of a batch, and changes the weights.

    What changes from step to step lies in tensors on the device, so that `compute` can be recorded: the
    number of the step, the losses, the sums of the meter, learning rates and shares of averages. `counted` does the
    rest on the host.

    Args:
        model: The model.
        forward: The model in the precision of the trial.
        task: The task.
        augment: Changes a batch at random.
        optimization: What changes the weights.
        steps: Steps of an epoch.
        batch_size: Samples of a full batch.
        device: The device of the model.
        ranks: The processes that train together.
    """

    def __init__(
        self,
        model: nn.Module,
        forward: Model,
        task: Task | Distilled,
        augment: Callable[[Batch], Batch],
        optimization: Optimization,
        steps: int,
        batch_size: int,
        device: torch.device,
        ranks: Ranks = ONE_RANK,
    ) -> None:
        self.model = model
        self.optimization = optimization
        self.losses = torch.zeros(steps, device=device)
        """The loss of each batch of the epoch."""
        self.meter: TaskMeter = task.meter(training=True)
        """The task's `train_metrics` of the epoch."""
        self.number = torch.zeros(1, dtype=torch.int64, device=device)
        """The number of the current step in its epoch, from 0."""
        self._forward, self._task, self._augment = forward, task, augment
        self._batch_size = batch_size
        self._ranks = ranks
        self.micro_batches = 1
        """Number of micro-batches in which a full batch is computed."""

    @property
    def micro_batch_size(self) -> int:
        """Samples of a micro-batch, also of a batch that is shorter: what batch normalization is trained on."""
        return math.ceil(self._batch_size / self.micro_batches)

    def begin_epoch(self) -> None:
        """Prepare the steps of an epoch."""
        self.losses.zero_()
        self.number.zero_()
        self.meter.reset()
        self.optimization.rates.begin_epoch()
        if self.optimization.average is not None:
            self.optimization.average.begin_epoch(len(self.losses), self.losses.device)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.number.device

    def compute(self, batch: Batch) -> None:
        """Compute a step."""
        self.compute_gradients(batch)
        self.change_weights()

    def compute_gradients(self, batch: Batch) -> None:
        """Compute the gradients of a batch, its loss and its metrics."""
        scaler = self.optimization.scaler
        self.optimization.optimizer.zero_grad()
        batch = self._augment(batch)
        total = torch.zeros(1, device=self.losses.device)
        for micro_batch, weight in self._ranks.micro_batches(batch, self.micro_batch_size):
            loss, outputs = self._task.training_loss(self._forward, micro_batch)
            loss = loss * weight  # losses are means over the samples
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            if self._ranks.counts:
                self.meter.add(outputs, micro_batch.targets)
        self.losses.index_copy_(0, self.number, total)

    def change_weights(self) -> None:
        """Change the weights by the gradients."""
        how = self.optimization
        how.rates.set(self.number)
        if how.clip_norm is not None:
            how.scaler.unscale_(how.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), how.clip_norm)
        how.scaler.step(how.optimizer)
        how.scaler.update()
        if how.average is not None:
            how.average.update(self.number)
        self.number += 1

    def counted(self, samples: int) -> None:
        """Note on the host that a step, which measures so many samples, was computed: by Python or by a record."""
        self.meter.count(samples)
        self.optimization.rates.advance()
        if self.optimization.average is not None:
            self.optimization.average.advance()
