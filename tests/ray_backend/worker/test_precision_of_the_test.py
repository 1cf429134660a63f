"""What is measured of a winner on a worker."""

import multiprocessing.process
import multiprocessing.util
import tempfile
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import torch

from tuner.data.loading.source import ALONE
from tuner.ray_backend.worker.winner import test as measured_on_the_test_set
from tuner.train.checkpoint import read_model
from tuner.train.evaluation import Evaluation, measure

CPU = torch.device("cpu")


@pytest.mark.slow
def test_the_test_set_is_measured_in_the_precision_of_the_validation(tmp_path: Path) -> None:
    model = {"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8}
    trial = checkpoints.write(tmp_path, data={"kind": "digits"}, model=model, precision="bfloat16")
    expected = {}
    with trial.data.opened_once("test", CPU, ALONE) as images:
        for dtype in (torch.bfloat16, torch.float32):
            network = read_model(tmp_path, ())[1]
            expected[dtype] = Evaluation.of(measure(trial.task, network, images, dtype), "test_").metrics
    found = measured_on_the_test_set(str(tmp_path), torch.get_num_threads(), has_gpu=False, targets=()).metrics
    assert found == expected[torch.bfloat16] != expected[torch.float32]


@pytest.mark.slow
def test_processes_that_decode_the_test_set_have_sockets_with_short_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial: Any = checkpoints.write(tmp_path, data={"kind": "digits"}, model={"kind": "mlp"})
    long = tmp_path / ("l" * 110)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    process: Any = multiprocessing.process.current_process()
    monkeypatch.setitem(process._config, "tempdir", None)
    measured_on_the_test_set(str(tmp_path), torch.get_num_threads(), has_gpu=False, targets=trial.targets)
    assert str(long) not in multiprocessing.util.get_temp_dir()
