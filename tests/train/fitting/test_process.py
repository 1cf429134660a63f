"""The limits of the process that measures batches, on a GPU that is only pretended."""

import pytest
import torch

from tuner.data.loading.source import LoaderResources
from tuner.train.fitting import process

GIGA = 10**9


def test_a_quarter_of_a_gpu_is_what_a_trial_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own function is called, with a device as trials have it: without a number."""
    limits = []
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70 * GIGA, 80 * GIGA))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: GIGA)
    monkeypatch.setattr(torch._C, "_cuda_setMemoryFraction", lambda *limit: limits.append(limit), raising=False)
    process._limit_gpu(torch.device("cuda"), LoaderResources(trials_per_gpu=4))
    ((share, device),) = limits
    own = 0.95 * (70 * GIGA - 3 * 2**29) / 4
    assert device == 0 and share == pytest.approx((GIGA + own) / (80 * GIGA))
