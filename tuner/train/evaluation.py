"""Evaluation of a model on the validation or test set, and of its latency."""

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

_EVALUATION_BATCH = 250  # larger batches are slower on a CPU and take more memory


class Diverged(Exception):
    """The loss became NaN or infinite."""


def evaluate(config: TrialConfig, model: nn.Module, data: Images, dtype: torch.dtype) -> dict[str, float]:
    """Compute the task's metrics of a model on a set; the names have no prefix.

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
    """Compute the outputs of a model in eval mode on a set.

    If a batch does not fit in memory, its size is halved, which does not change the outputs in eval mode.

    Returns:
        The outputs and the targets, in the order of the set.
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
        for images, batch_targets in data.batches(batch):
            outputs.append(_float32(model(images)))
            targets.append(batch_targets)
    return _joined(outputs), _joined(targets)


def _latency(model: nn.Module, data: Images, dtype: torch.dtype) -> float:
    """Median inference time of a model in eval mode for one image, in seconds: of 3 to 30 runs in about 0.1 s."""
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
    """Convert outputs to float32, in which losses and metrics are computed."""
    return output.float() if isinstance(output, Tensor) else {name: value.float() for name, value in output.items()}


def _joined(batches: Iterable[Any]) -> Any:
    """Concatenate batches, tensors or dicts of tensors, along the first dimension."""
    batches = list(batches)
    if isinstance(batches[0], Tensor):
        return torch.cat(batches)
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
