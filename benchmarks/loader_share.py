"""What reading images costs a training of ResNet-18: the share of its steps that wait, and the memory it takes."""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_THREADS = 2


@dataclass(frozen=True)
class Share:
    """The cost of reading.

    Args:
        waiting: Share of an epoch's time in which the training waits for its next batch, from the second epoch on.
        step: Seconds of a step, with the waiting.
        images: Bytes of the decoded training and validation images.
        peak: Bytes by which the peak memory of the process grows over that of the same training without images; pages
            of a mapped file count, which the system takes back when it needs them.
        workers: Bytes of the processes that decode, in their shares of the pages that they have in common.
    """

    waiting: float
    step: float
    images: int
    peak: int
    workers: int


class _Timed:
    """A source that measures how long its batches take, and what its processes take."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.seconds = 0.0
        self.workers: int | None = None
        self.gather = None

    def __len__(self) -> int:
        return len(self._source)

    def batches(self, size: int, seed: int | None = None) -> Iterator[Any]:
        batches = self._source.batches(size, seed)
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self.seconds += time.perf_counter() - started
            if batch is None:
                return
            yield batch
            if self.workers is None:
                self.workers = _of_children()


def measure(trial: dict[str, Any], cache: str, steps: int) -> Share:
    """Train ResNet-18 for two epochs of `steps` steps in this process, and measure the second.

    Args:
        trial: The trial, whose model is replaced.
        cache: Where its images lie.
        steps: Number of steps of an epoch.
    """
    import torch

    from tuner.data.images import Images
    from tuner.data.loading.source import ALONE
    from tuner.train.device import keep_freed_memory
    from tuner.train.trainer import Trainer
    from tuner.train.trial_config import TrialConfig

    torch.set_num_threads(_THREADS)
    keep_freed_memory()  # as every trial does
    device = torch.device("cpu")
    data = trial["data"] | {"cache": cache, "limit": steps * trial["data"]["batch_size"]}
    model = {"kind": "torchvision", "name": "resnet18", "weights": "none"}
    replaced = {"data": data, "model": model, "schedule": {"kind": "constant"}, "seed": 0}
    config = TrialConfig.model_validate(trial | replaced)
    trainer = Trainer(config, device, data["limit"], 1)
    shape = config.data.image
    one = torch.zeros((1, shape.channels, shape.height, shape.width), dtype=torch.uint8)
    blank = one.expand(data["limit"], -1, -1, -1)  # an epoch of the same size, in no memory
    trainer.train_epoch(Images(blank, {"label": torch.zeros(len(blank), dtype=torch.int64)}), 1, lambda: None)
    before = _peak()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TUNER_DATA_DIR"] = folder
        with config.data.opened(device, ALONE) as (train, _):
            trainer.train_epoch(train, 1, lambda: None)  # the first one starts the processes
            timed = _Timed(train)
            started = time.perf_counter()
            trainer.train_epoch(timed, 2, lambda: None)  # type: ignore[arg-type]
            seconds = time.perf_counter() - started
    sizes = config.data.model_copy(update={"limit": None}).describe().sizes
    images = (sizes["train"] + sizes["validation"]) * shape.channels * shape.height * shape.width
    return Share(timed.seconds / seconds, seconds / steps, images, _peak() - before, timed.workers or 0)


def _peak() -> int:
    """The largest memory that this process has had, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _of_children() -> int:
    import psutil

    return sum(each.memory_full_info().pss for each in psutil.Process().children(recursive=True))
