"""The load and the memory of a node while a trial trains there."""

import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from ray import tune

from tuner.ray_backend.worker import trainable
from tuner.ray_backend.worker.system_metrics import SystemMetrics
from tuner.ray_backend.worker.training import train_task
from tuner.report_keys import SYSTEM
from tuner.train.trial_config import TrialConfig

GPU = 80 * 2**30
"""Bytes of the memory of a GPU."""


class Answers:
    """Gives one answer after another, and the last one again and again."""

    def __init__(self, *values: float) -> None:
        self._values: Iterator[float] = chain(values, repeat(values[-1]))
        self.given = list[float]()

    def __call__(self, *_: Any) -> float:
        self.given.append(next(self._values))
        return self.given[-1]


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "system metrics"]


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A GPU that this process computes on; the test says what its library answers."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(total_memory=GPU))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (GPU // 4, GPU))
    monkeypatch.setattr(torch.cuda, "device_memory_used", lambda number: GPU // 2)
    return monkeypatch


@pytest.mark.slow
def test_a_report_has_the_mean_since_the_last_one(gpu: pytest.MonkeyPatch) -> None:
    load = Answers(90, 60, 0)
    gpu.setattr(torch.cuda, "utilization", load)
    with SystemMetrics() as system:
        wait_until(lambda: len(load.given) >= 3)
        first = system.means()
        given = list(load.given)
        wait_until(lambda: len(load.given) > len(given))
        second = system.means()
    # The thread may have got an answer that it has not added yet.
    possible = [sum(each) / len(each) for each in (given, given[:-1])]
    assert any(first["gpu_0_utilization_percentage"] == pytest.approx(each) for each in possible)
    assert second["gpu_0_utilization_percentage"] == 0
    assert first["gpu_0_memory_usage_megabytes"] == GPU / 2 / 2**20
    assert first["gpu_0_memory_usage_percentage"] == pytest.approx(50)


def test_the_shortest_epoch_has_its_values() -> None:
    with SystemMetrics() as system:
        values = [system.means(), system.means()]
    names = {f"{what}_usage_megabytes" for what in ("system_memory", "process_memory")}
    assert all({*names, "cpu_utilization_percentage"} <= set(each) for each in values)
    assert all(0 < each["process_memory_usage_megabytes"] < each["system_memory_usage_megabytes"] for each in values)
    assert all(0 <= each["cpu_utilization_percentage"] <= 100 for each in values)


def test_the_load_of_the_cpu_is_that_since_the_last_report(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()

    def ask() -> float:
        asked.append(threading.current_thread().name)
        return 40

    monkeypatch.setattr(psutil, "cpu_percent", ask)
    with SystemMetrics() as system:
        assert len(asked) == 1, "the load before the trial is not counted"
        time.sleep(0.3)  # samples, which would begin the measurement anew
        assert system.means()["cpu_utilization_percentage"] == 40
    assert asked == [threading.current_thread().name] * 2


@pytest.mark.parametrize("error", [ModuleNotFoundError, RuntimeError, type("NVMLError_NotSupported", (Exception,), {})])
def test_a_gpu_whose_library_says_nothing_has_its_memory_all_the_same(
    gpu: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def ask(number: int) -> int:
        raise error

    gpu.setattr(torch.cuda, "utilization", ask)
    with SystemMetrics() as system:
        values = system.means()
    assert "gpu_0_utilization_percentage" not in values
    assert values["gpu_0_memory_usage_percentage"] == pytest.approx(75)
    assert values["gpu_0_memory_usage_megabytes"] == pytest.approx(GPU * 3 / 4 / 2**20)


def test_its_thread_ends_with_the_trial_whatever_ends_it() -> None:
    for error in (ValueError, SystemExit):
        with pytest.raises(error), SystemMetrics():
            assert threads()
            raise error
        assert not threads()


@pytest.mark.slow
def test_each_epoch_of_a_trial_reports_them_and_nothing_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = list[dict[str, Any]]()
    monkeypatch.setattr(tune, "report", lambda values, checkpoint: reports.append(values))
    monkeypatch.setattr(tune, "get_checkpoint", lambda: None)
    trial = TrialConfig.model_validate({"data": {"kind": "digits", "limit": 64}, "model": {"kind": "mlp"}, "epochs": 2})
    task = {"trial": trial.with_seed(0).model_dump(mode="json"), "beside": True, "halves": False, "costly": []}
    task |= {"objectives": ["val_loss"], "objective": {"metric": "val_loss", "mode": "min"}}
    task |= {"cpu": 1, "gpu": 0, "at_once": 1, "teacher": "", "ranks": 1}
    train_task(task, trainable._RaySession(), {})
    assert [each["epoch"] for each in reports] == [1, 2]
    assert all(each[SYSTEM]["process_memory_usage_megabytes"] > 0 for each in reports)
    assert not threads()


def test_trials_of_one_process_share_its_samples(gpu: pytest.MonkeyPatch) -> None:
    load = Answers(50)
    gpu.setattr(torch.cuda, "utilization", load)
    with SystemMetrics() as first:
        with SystemMetrics() as second:
            assert len(threads()) == 1
            wait_until(lambda: len(load.given) >= 2)
            assert second.means()["gpu_0_utilization_percentage"] == 50
        assert len(threads()) == 1, "the first one goes on"
        given = len(load.given)
        wait_until(lambda: len(load.given) > given)
        assert first.means()["gpu_0_utilization_percentage"] == 50
    assert not threads()
