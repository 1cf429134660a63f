"""How fast a trial trains with batches of a given size."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tuner.data.images import Images
from tuner.interfaces import Batch
from tuner.process.out_of_memory import is_out_of_memory, release
from tuner.train.evaluation import Diverged
from tuner.train.optim.lr_schedules import Constant
from tuner.train.trainer import Trainer
from tuner.train.trial_config import TrialConfig

_SECONDS = 0.3
"""How long steps are timed, and as long to warm up: the first ones allocate memory and choose kernels."""
_TIMES = 2
"""How often they are timed. The fastest counts: others on the machine only slow it down."""
_ENOUGH = 3.0
"""Seconds of steps behind which they are not timed again: how they began no longer matters."""
_FEWEST, _MOST = 2, 100
"""Steps that are timed together."""
_LR = 1e-12
"""Learning rate: new weights stay finite at batches of any size, and a step computes the same."""


@dataclass(frozen=True)
class Repeated:
    """A training set of any number of samples, which repeats a few. A `Source`.

    Args:
        images: The samples, on the device.
        count: How many it shall be.
    """

    images: Images
    count: int

    @property
    def device(self) -> torch.device:
        """The device of the batches."""
        return self.images.device

    @property
    def image_bytes(self) -> int:
        """Bytes of an image before it is scaled."""
        return self.images.image_bytes

    @property
    def is_read(self) -> bool:
        """No: they lie on the device."""
        return False

    def __len__(self) -> int:
        return self.count

    def first(self, count: int) -> "Repeated":
        """The first samples."""
        return Repeated(self.images, min(count, self.count))

    def batches(self, size: int, seed: int | None = None) -> Iterator[Batch]:
        """Iterate over all samples in batches, whatever the seed in the same order."""
        for start in range(0, self.count, size):
            yield self.gather(torch.arange(start, min(start + size, self.count), device=self.device))

    def order(self, seed: int) -> Tensor:
        """The same order whatever the seed."""
        return torch.arange(self.count)

    def batches_of(self, parts: Sequence[Tensor]) -> Iterator[Batch]:
        """Iterate over batches of some samples."""
        for part in parts:
            yield self.gather(part.to(self.device))

    def gather(self, places: Tensor) -> Batch:
        """Make a batch of the samples at some places."""
        return self.images.gather(places % len(self.images))


class Speedometer:
    """Measures how many images per second a trial trains. What it trains is thrown away.

    Args:
        config: The trial.
        sample: Some of its training images, on the device.
        teacher: The teacher of its distillation, in eval mode; None if it has none.
    """

    def __init__(self, config: TrialConfig, sample: Images, teacher: nn.Module | None = None) -> None:
        still: dict[str, Any] = {"lr": _LR} | ({} if config.optimizer.head_lr is None else {"head_lr": _LR})
        optimizer = config.optimizer.model_copy(update=still)
        changes: dict[str, Any] = {"optimizer": optimizer, "schedule": Constant(), "seed": config.seed or 0}
        changes["compile"] = "off"  # else each size would be compiled first
        self._config = config.model_copy(update=changes)
        self._sample, self._teacher = sample, teacher
        self._speed: float | None = None

    def measure(self, size: int) -> float | None:
        """Measure the images per second of batches of `size` images; None if they do not fit in memory."""
        try:
            if self._speed is None:
                self._speed = self._timed(size, _FEWEST)
            a_step = size * self._config.accumulate / self._speed
            self._speed = self._timed(size, max(_FEWEST, min(_MOST, round(_SECONDS / a_step))))
            return self._speed
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        release()  # now: until here, the exception kept tensors alive
        return None

    def _timed(self, size: int, steps: int) -> float:
        config = self._config.with_batch_size(size)
        images = steps * size * config.accumulate
        source, device = Repeated(self._sample, images), self._sample.device
        trainer = Trainer(config, device, images, 1, self._teacher)
        speeds = []
        with trainer.place():
            for _ in range(1 + _TIMES):
                began = time.perf_counter()
                with contextlib.suppress(Diverged):  # it takes as long; a trial that diverges tells it
                    # Of the last epoch, in which no layer is frozen any more.
                    trainer.train_epoch(source, config.epochs, lambda: None)
                took = time.perf_counter() - began  # an epoch ends when the device has computed it
                speeds.append(images / took)
                if took > _ENOUGH:
                    break
        del trainer
        release()
        return max(speeds)
