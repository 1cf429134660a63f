"""The learning-rate range test (Smith, 2017): a trial trains with a rate that rises from step to step."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn, optim
from torch.optim import lr_scheduler

from tuner.data.loading.source import Source
from tuner.interfaces import Batch
from tuner.train.evaluation import Diverged
from tuner.train.fitting.lr_curve import Curve
from tuner.train.optim.lr_schedules import Constant
from tuner.train.trainer import Trainer
from tuner.train.trial_config import TrialConfig

LOWEST, HIGHEST = 1e-6, 10.0
"""The first and the last learning rate, between those that train any optimizer too slowly and make it explode."""
_FEWEST, _MOST = 100, 300
"""Steps of a test: as many as ten epochs have, within these bounds."""
_EPOCHS = 10
_DECAY = 0.9
"""Share of the running mean of the loss, by which an explosion is seen, that remains at each step."""
_EXPLODED = 4.0
"""A running mean of so many times its lowest value is an explosion."""


class _Rising(Constant):
    """A schedule whose learning rate of the head rises by the same factor at each step.

    The other groups of parameters have rates in the same proportion as in the trial.
    """

    lr: float = Field(gt=0)
    """The optimizer's learning rate, which factors refer to."""

    def build(self, optimizer: optim.Optimizer, epochs: int, steps_per_epoch: int) -> lr_scheduler.LRScheduler:
        last = max(1, epochs * steps_per_epoch - 1)
        return lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / last) / self.lr)


def _rate(progress: float) -> float:
    """The learning rate when a share of the steps has been made."""
    return float(LOWEST * (HIGHEST / LOWEST) ** min(1.0, progress))


@dataclass
class _OneBatch:
    """A training set that is one batch: the next one of the trial's own. A `Source`."""

    batch: Batch
    image_bytes: int

    @property
    def device(self) -> torch.device:
        """The device of the batch."""
        return self.batch.inputs.device

    @property
    def is_read(self) -> bool:
        """No: it lies on the device."""
        return False

    @property
    def gather(self) -> None:
        """Nothing: the batch is there."""
        return None

    def __len__(self) -> int:
        return len(self.batch)

    def first(self, count: int) -> "_OneBatch":
        """The first samples."""
        return _OneBatch(next(self.batch.micro_batches(count)), self.image_bytes)

    def batches(self, size: int, seed: int | None = None) -> Iterator[Batch]:
        """Iterate over the one batch."""
        yield self.batch

    def order(self, seed: int) -> Tensor:
        """The order that the batch has."""
        return torch.arange(len(self))

    def batches_of(self, parts: Sequence[Tensor]) -> Iterator[Batch]:
        """Iterate over parts of the batch."""
        for part in parts:
            places = part.to(self.device)
            targets = {name: target[places] for name, target in self.batch.targets.items()}
            yield Batch(self.batch.inputs[places].contiguous(memory_format=torch.channels_last), targets)


def range_test(
    config: TrialConfig,
    train: Source,
    *,
    teacher: nn.Module | None = None,
    micro_batches: int = 1,
) -> Curve:
    """Train a trial with rising learning rates, until the loss explodes or the rates end.

    Everything else is the trial's own: optimizer, augmentation, precision, accumulation, clipping, pretrained weights,
    what is frozen in its first epoch. What is trained is thrown away.

    Args:
        config: The trial, with an explicit seed.
        train: Its training set, on the device.
        teacher: The teacher of its distillation, in eval mode; None if it has none.
        micro_batches: Number of micro-batches in which each batch is computed.
    """
    size = min(len(train), config.data.images_per_batch * config.accumulate)
    steps = max(_FEWEST, min(_MOST, _EPOCHS * len(train) // size))
    changes: dict[str, Any] = {
        "schedule": _Rising(lr=config.optimizer.lr),
        "epochs": steps,
        "ema": None,
        "graph": "off",
        "compile": "off",
    }
    trainer = Trainer(config.model_copy(update=changes), train.device, size, micro_batches, teacher)
    seed = trainer.seed
    rates: list[float] = []
    losses: list[float] = []
    mean, lowest = 0.0, math.inf
    with suppress(Diverged), trainer.place():
        config.model.load_pretrained(trainer.model)
        for step, batch in enumerate(_batches(train, size, seed, steps)):
            trainer.seed = (seed + step) % 2**63  # augmentation and dropout differ from step to step
            rate = trainer.learning_rate * config.optimizer.lr / (config.optimizer.head_lr or config.optimizer.lr)
            loss = trainer.train_epoch(_OneBatch(batch, train.image_bytes), 1, lambda: None)["loss"]
            rates.append(rate)
            losses.append(loss)
            mean = _DECAY * mean + (1 - _DECAY) * loss
            unbiased = mean / (1 - _DECAY ** len(losses))
            lowest = min(lowest, unbiased)
            if unbiased > _EXPLODED * lowest:
                break
        else:
            return Curve(rates, losses)
    return Curve(rates, losses, exploded=True)


def _batches(train: Source, size: int, seed: int, steps: int) -> Iterator[Batch]:
    """So many full batches of the training set, in a new random order in each epoch."""
    epoch = 0
    while steps > 0:
        epoch += 1
        for batch in train.batches(size, (seed * 1_000_003 + epoch) % 2**63):
            if len(batch) == size:
                yield batch
                steps -= 1
            if steps == 0:
                return
