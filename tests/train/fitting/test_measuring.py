"""The measurement of batches by a process of its own."""

import textwrap
from pathlib import Path
from typing import Any

import pytest

from tuner import user_code
from tuner.data.loading.source import LoaderResources
from tuner.errors import UserError
from tuner.train.fitting import measuring
from tuner.train.fitting.batch_search import Measured
from tuner.train.trial_config import TrialConfig

pytestmark = pytest.mark.slow

NET = """
import os
import torch
from torch import nn

def net():
    return Net()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(64, 10)

    def forward(self, images):
        print("said by the model")
        {body}
        return self.out(images.flatten(1))
"""


def measured(**parts: Any) -> Measured:
    whole: dict[str, Any] = {"data": {"kind": "digits", "batch_size": "auto", "limit": 200}, "precision": "float32"}
    config = TrialConfig.model_validate(whole | parts)
    return measuring.measure(config, threads=1, has_gpu=False, loading=LoaderResources(0))


def own(folder: Path, name: str, body: str) -> dict[str, Any]:
    """A model of the user's own whose `forward` begins with `body`."""
    (folder / f"{name}.py").write_text(textwrap.dedent(NET).format(body=body))
    user_code.add_folder(folder)
    return {"kind": "import", "target": f"{name}:net"}


CNN = {"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8}


def test_a_trial_on_this_machine() -> None:
    found = measured(model=CNN, accumulate=2)
    assert found.device == "cpu" and next(iter(found.speeds)) == 16
    assert found.batch_size in found.speeds and found.batch_size <= 100, "a step takes two batches of 200 images"
    assert found.steps == -(-200 // (2 * found.batch_size))


def test_a_batch_is_shared_out_among_the_processes_of_a_trial() -> None:
    data = {"kind": "digits", "batch_size": "auto", "limit": 32}
    config = TrialConfig.model_validate({"data": data, "precision": "float32", "model": CNN})
    found = measuring.measure(config, threads=1, has_gpu=False, loading=LoaderResources(0), ranks=2)
    assert set(found.speeds) <= {16, 8, 4, 2, 1} and found.batch_size // 2 in found.speeds
    assert found.batch_size <= 32 and found.steps == 32 // found.batch_size


def test_memory_that_a_trial_has_not_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "free_memory", lambda: 1.0)
    with pytest.raises(UserError, match="auto finds none"):
        measured(model=CNN)


def test_a_model_that_runs_out_of_memory_is_measured_with_less(tmp_path: Path) -> None:
    model = own(tmp_path, "fit_large", "len(images) <= 4 or torch.empty(2**60, dtype=torch.uint8)")
    found = measured(model=model)
    assert (found.batch_size, found.end) == (4, "8 do not fit in memory")


def test_a_process_that_the_system_kills_has_run_out_of_memory(tmp_path: Path) -> None:
    model = own(tmp_path, "fit_killed", "len(images) <= 8 or os.kill(os.getpid(), 9)")
    found = measured(model=model)
    assert (found.batch_size, found.end) == (8, "16 do not fit in memory")


def test_a_step_that_fails_is_told(tmp_path: Path) -> None:
    model = own(tmp_path, "fit_broken", "len(images) <= 3 or images.no_such_thing")
    with pytest.raises(UserError, match="no_such_thing") as raised:
        measured(model=model)
    assert raised.value.problems[0].key == "trial.data.batch_size"


def test_a_process_that_ends_is_told(tmp_path: Path) -> None:
    model = own(tmp_path, "fit_ended", "len(images) <= 3 or os._exit(3)")
    with pytest.raises(UserError, match=r"ended with status 3: .*said by the model"):
        measured(model=model)
