"""What is done beside the training: reports, and the checkpoints that go with them."""

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any, ClassVar

import pytest
import torch
from ray import tune
from torch import Tensor, nn

from tuner.ray_backend.worker import trainable
from tuner.ray_backend.worker.async_checkpoint import AsyncWork
from tuner.ray_backend.worker.training import train_task
from tuner.train.checkpoint import read_state
from tuner.train.trial_config import TrialConfig


class TestBeside:
    def test_its_caller_goes_on_meanwhile(self) -> None:
        go = Event()
        with AsyncWork() as beside:
            beside.begin(lambda: wait(go))
            go.set()

    def test_one_is_over_before_the_next_begins(self) -> None:
        done: list[int] = []

        def work(number: int) -> None:
            time.sleep(0.05)
            done.append(number)

        with AsyncWork() as beside:
            for number in range(3):
                beside.begin(lambda number=number: work(number))  # type: ignore[misc]
                assert done == list(range(number))
        assert done == [0, 1, 2]

    @pytest.mark.parametrize("error", [OSError("no room"), SystemExit(0)])
    def test_what_it_raises_is_raised_where_its_caller_looks(self, error: BaseException) -> None:
        def work() -> None:
            raise error

        with AsyncWork() as beside, pytest.raises(type(error)) as raised:
            beside.begin(work)
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                beside.look()
        assert raised.value is error

    def test_what_it_raises_comes_before_what_its_caller_raises_then(self) -> None:
        go = Event()

        def work() -> None:
            wait(go)
            raise OSError("no room")

        with pytest.raises(OSError, match="no room"), AsyncWork() as beside:
            beside.begin(work)
            go.set()
            raise ValueError("later")


def wait(event: Event) -> None:
    assert event.wait(30), "nobody went on"


TRIAL: dict[str, Any] = {
    "data": {"kind": "digits", "limit": 320, "batch_size": 32},
    "model": {"kind": "import", "target": f"{__name__}:Telling"},
    "epochs": 3,
    "seed": 0,
}


class Telling(nn.Module):
    """A model that tells that it is trained, and how often; its training can be slowed down."""

    epochs: ClassVar[list[Event]] = []
    """Set when that epoch has begun."""
    batches: ClassVar[int] = 0
    slow: ClassVar[float] = 0
    """Seconds that a batch takes from the second epoch on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        if self.training and len(images) == TRIAL["data"]["batch_size"]:  # the checks before a training take fewer
            epoch = Telling.batches // batches_an_epoch()
            Telling.batches += 1
            Telling.epochs[epoch].set()
            time.sleep(Telling.slow if epoch else 0)
        return self.layer(images.flatten(1))  # type: ignore[no-any-return]


@cache
def batches_an_epoch() -> int:
    train, _ = TrialConfig.model_validate(TRIAL).data.load()
    return -(-len(train) // 32)


Reported = list[tuple[int, dict[str, Tensor]]]


def go_on(beside: bool, patch: pytest.MonkeyPatch, meanwhile: Callable[[int], None] = lambda epoch: None) -> Reported:
    """Train a trial to its end. Ray is not there: of each report `meanwhile` is told. Returns epochs and weights."""
    made: Reported = []

    def report(metrics: dict[str, Any], checkpoint: Any) -> None:
        made.append((metrics["epoch"], read_state(Path(checkpoint.path))[0]))
        meanwhile(metrics["epoch"])

    patch.setattr(Telling, "epochs", [Event() for _ in range(3)])
    patch.setattr(Telling, "batches", 0)
    patch.setattr(tune, "report", report)
    patch.setattr(tune, "get_checkpoint", lambda: None)
    task = {"trial": TrialConfig.model_validate(TRIAL).model_dump(mode="json"), "beside": beside, "halves": False}
    task |= {"objectives": ["val_loss"], "costly": []}
    task |= {
        "objective": {"metric": "val_loss", "mode": "min"},
        "cpu": 1,
        "gpu": 0,
        "ranks": 1,
        "at_once": 1,
        "teacher": "",
    }
    train_task(task, trainable._RaySession(), {})
    return made


def test_a_trial_trains_on_while_its_checkpoint_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def others(epoch: int) -> None:
        if epoch < 3:
            wait(Telling.epochs[epoch])  # counted from 0: it is the next one

    beside = go_on(True, monkeypatch, others)
    alone = go_on(False, monkeypatch)
    assert [epoch for epoch, _ in beside] == [epoch for epoch, _ in alone] == [1, 2, 3]
    for (_, weights), (_, wanted) in zip(beside, alone, strict=True):
        assert all(torch.equal(weights[name], wanted[name]) for name in wanted)


def test_in_a_population_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def others(epoch: int) -> None:
        assert not any(event.is_set() for event in Telling.epochs[epoch:])

    assert len(go_on(False, monkeypatch, others)) == 3


@pytest.mark.parametrize("error", [OSError("no room"), SystemExit(0)])
def test_a_report_that_ends_the_trial_ends_it_between_two_batches(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def others(epoch: int) -> None:
        wait(Telling.epochs[epoch])
        raise error

    monkeypatch.setattr(Telling, "slow", 0.2)
    with pytest.raises(type(error)):
        go_on(True, monkeypatch, others)
    assert batches_an_epoch() < Telling.batches < 2 * batches_an_epoch()
