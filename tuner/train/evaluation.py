"""Measuring a model: on the validation set after each epoch, on the test set once, and how long it takes."""

import math
import time
from collections.abc import Iterable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from tuner.data.images import Images
from tuner.interfaces import Outputs, Targets
from tuner.train.out_of_memory import is_out_of_memory, release
from tuner.train.trial_config import TrialConfig

_EVALUATION_BATCH = 250  # nothing is kept for a backward pass; larger ones are slower on a CPU and take more memory


class Diverged(Exception):
    """The loss became NaN or infinite: this trial has no more to learn."""


def evaluate(config: TrialConfig, model: nn.Module, data: Images, dtype: torch.dtype) -> dict[str, float]:
    """The task's metrics of a model on a whole set, without a prefix.

    Raises:
        Diverged: The loss is NaN or infinite.
    """
    outputs, targets = predict(model, data, dtype)
    measured = config.task.measure(outputs, targets)
    if not math.isfinite(measured["loss"]):
        raise Diverged(f"the loss became {measured['loss']} on held-out images")
    return measured


def predict(
    model: nn.Module, data: Images, dtype: torch.dtype = torch.float32, batch: int = _EVALUATION_BATCH
) -> tuple[Outputs, Targets]:
    """Outputs of a model in eval mode on a whole set, and the targets in the same order.

    Where the memory is not enough for a batch, smaller ones do: in eval mode no image knows of the others.
    """
    try:
        return _predict(model, data, dtype, batch)
    except Exception as error:
        if batch == 1 or not is_out_of_memory(error):
            raise
    release()
    return predict(model, data, dtype, batch // 2)


def _predict(model: nn.Module, data: Images, dtype: torch.dtype, batch: int) -> tuple[Outputs, Targets]:
    model.eval()
    outputs, targets = [], []
    device = data.images.device.type
    with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype is not torch.float32):
        for images, wanted in data.batches(batch):
            outputs.append(_float32(model(images)))
            targets.append(wanted)
    return _joined(outputs), _joined(targets)


def _latency(model: nn.Module, data: Images, dtype: torch.dtype) -> float:
    """Seconds that a model in eval mode takes for one image, the median of up to 30; a slow one is asked less often."""
    seconds: list[float] = []
    device = data.images.device
    while len(seconds) < 3 or (len(seconds) < 30 and sum(seconds) < 0.1):
        started = time.perf_counter()
        predict(model, data[:1], dtype)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def _float32(output: Outputs) -> Outputs:
    """Losses and metrics are computed in float32, whatever the matrices were computed in."""
    return output.float() if isinstance(output, Tensor) else {name: value.float() for name, value in output.items()}


def _joined(parts: Iterable[Any]) -> Any:
    """Batches put together along the first dimension: of tensors, or of dicts of tensors."""
    parts = list(parts)
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
