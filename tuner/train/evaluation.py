"""Evaluation of a model on the validation or test set, and of its latency."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor, nn

from tuner.data.loading.source import Source
from tuner.interfaces import Batch, Model, Outputs, Targets, WithAuxiliary
from tuner.process.out_of_memory import is_out_of_memory, release
from tuner.tasks import TaskConfig
from tuner.tasks.base import TaskMeter
from tuner.tasks.metrics.meter import ByClass, ErrorKind

_BATCH, _BATCH_BYTES = 250, 2**24
"""Most images of a batch on a CPU, which is slower with more, and most bytes of them, of which a layer's outputs take a
multiple: 111 images of 224x224 pixels."""
_BATCH_OF_GPU, _BATCH_BYTES_OF_GPU = 4096, 2**27
"""The same on a GPU, where most of the time of 250 small images is that of Python."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured on a set.

    Args:
        metrics: The task's metrics by their full names.
        confusion: The confusion matrix (rows the true class) of each head that predicts one class. They are by the name
            of the head; by its target if the head has no name.
        by_class: The metrics of single classes of each head that predicts classes, by the same names.
        errors: The kinds of errors of each head that tells them apart, by the same names.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    confusion: dict[str, list[list[int]]] = field(default_factory=dict)
    by_class: dict[str, ByClass] = field(default_factory=dict)
    errors: dict[str, list[ErrorKind]] = field(default_factory=dict)

    @classmethod
    def of(cls, meter: TaskMeter, prefix: str) -> "Evaluation":
        """What a meter has measured; the names of its metrics get a prefix, such as ``test_``."""
        metrics = {f"{prefix}{name}": value for name, value in meter.compute().items()}
        return cls(metrics, meter.confusion(), meter.by_class(), meter.errors())


class Diverged(Exception):
    """The loss became NaN or infinite."""


def finite(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics of a model on a set, without prefix.

    Raises:
        Diverged: The loss is NaN or infinite.
    """
    if not math.isfinite(metrics.get("loss", 0.0)):
        raise Diverged(f"the loss became {metrics['loss']} on held-out images")
    return metrics


def measure(task: TaskConfig, model: nn.Module, data: Source, dtype: torch.dtype = torch.float32) -> TaskMeter:
    """Compute the outputs of a model on a set, and return the meter that has seen them all."""
    meter = task.meter()
    for batch, outputs in predict(task, model, data, dtype):
        meter.update(outputs, batch.targets)
    return meter


def predict(
    task: TaskConfig,
    model: nn.Module,
    data: Source,
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
) -> Iterator[tuple[Batch, Outputs]]:
    """Compute the outputs of a model in eval mode on a set, batch after batch in the order of the set.

    A batch that does not fit in memory is computed in halves, which does not change the outputs in eval mode.

    Args:
        task: The task.
        model: The model, on the device of the set.
        data: The set.
        dtype: The data type of matrices.
        batch_size: Images of a batch; None for `images_at_once`.
    """
    model.eval()
    forward = in_precision(model, data.device, dtype)
    size = batch_size = batch_size or images_at_once(data.image_bytes, data.device)
    for batch in data.batches(batch_size):
        pending = list(batch.micro_batches(size))
        while pending:
            outputs = _outputs(task, forward, pending[0])
            if outputs is not None:
                yield pending.pop(0), outputs
                continue
            release()
            size = len(pending[0]) // 2
            pending = [part for each in pending for part in each.micro_batches(size)]


def images_at_once(image_bytes: int, device: torch.device) -> int:
    """How many images of so many bytes each are computed at once on a device, if its memory allows that."""
    most, most_bytes = (_BATCH_OF_GPU, _BATCH_BYTES_OF_GPU) if device.type == "cuda" else (_BATCH, _BATCH_BYTES)
    return max(1, min(most, most_bytes // image_bytes))


def _outputs(task: TaskConfig, forward: Model, batch: Batch) -> Outputs | None:
    """Return the outputs for a batch; None if it does not fit in memory and can be split."""
    try:
        with torch.no_grad():  # a scripted module that was run in inference mode cannot be trained
            return task.predict(forward, batch)
    except Exception as error:
        if len(batch) == 1 or not is_out_of_memory(error):
            raise
    return None


def latency(task: TaskConfig, model: nn.Module, data: Source, dtype: torch.dtype) -> float:
    """Return the median inference time of a model for one image, in seconds: of 3 to 30 runs in about 0.1 s."""
    device, one = data.device, data.first(1)

    def run() -> None:
        for _ in predict(task, model, one, dtype):
            if device.type == "cuda":
                torch.cuda.current_stream(device).synchronize()  # other trials may compute on other streams

    return median_seconds(run, most=30, total=0.1)


def median_seconds(run: Callable[[], object], *, most: int, total: float) -> float:
    """Return the median time of a call, in seconds.

    Args:
        run: What is called, 3 times at the least.
        most: Most calls.
        total: Seconds of all calls together after which it is called no more.
    """
    seconds: list[float] = []
    while len(seconds) < 3 or (len(seconds) < most and sum(seconds) < total):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def in_precision(model: Model, device: torch.device, dtype: torch.dtype) -> Model:
    """Return a function that computes a model's matrices in `dtype` and returns float32, for losses and metrics."""

    def forward(*inputs: Tensor | Targets) -> Outputs | WithAuxiliary:
        with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            returned = model(*inputs)
        if isinstance(returned, WithAuxiliary):
            auxiliary = tuple(map(_as_float, returned.auxiliary))
            return WithAuxiliary(_as_float(returned.outputs), auxiliary, returned.weight)
        return _as_float(returned)

    return forward


def _as_float(outputs: Outputs) -> Outputs:
    if isinstance(outputs, Tensor):
        return outputs.float()
    return {name: output.float() for name, output in outputs.items()}
