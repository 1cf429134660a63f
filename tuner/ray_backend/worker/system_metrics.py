"""MLflow's system metrics of the node that a trial runs on."""

from typing import Any

import psutil
import torch

_MEBI = 2**20


def sample() -> dict[str, float]:
    """Measure the load of this node since the last call, and its memory use.

    Returns:
        Shares in percent and memory in MiB, by the names that MLflow shows below "System metrics"; also of the GPUs
        that this process sees, if it computes on one.
    """
    memory = psutil.virtual_memory()
    values = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_percentage": memory.percent,
        "system_memory_usage_megabytes": memory.used / _MEBI,
        "process_memory_usage_megabytes": psutil.Process().memory_info().rss / _MEBI,
    }
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return values  # a query would allocate memory on the GPU, which may be another trial's
    for number in range(torch.cuda.device_count()):
        values |= {f"gpu_{number}_{name}": value for name, value in _of_gpu(number).items()}
    return values


def _of_gpu(number: int) -> dict[str, Any]:
    free, total = torch.cuda.mem_get_info(number)
    values = {
        "memory_usage_percentage": 100 * (1 - free / total),
        "memory_usage_megabytes": (total - free) / _MEBI,
    }
    try:
        return values | {"utilization_percentage": torch.cuda.utilization(number)}
    except (ModuleNotFoundError, RuntimeError):  # NVIDIA's library is not installed
        return values
