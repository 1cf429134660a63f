"""Trials in the threads of one process: what one does, and what becomes of it, does not reach another."""

import errno
import io
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tuner.data.digits import Digits
from tuner.ray_backend.host import hosted, messages, server
from tuner.ray_backend.host.hosted import Host
from tuner.ray_backend.host.printed import PrintedByThread
from tuner.ray_backend.host.proxied import Proxied
from tuner.report_keys import DAMAGED, REASON, STATUS, TRACEBACK
from tuner.storage import temporary
from tuner.storage.disk_full import FULL
from tuner.train.checkpoint import read_state
from tuner.train.loop import fit
from tuner.train.trial_config import TrialConfig

pytestmark = pytest.mark.slow

TRIAL = {
    "data": {"kind": "digits", "limit": 300, "batch_size": 64, "augment": {"cutmix": 0.5}},
    "model": {"kind": "cnn", "hidden": 32, "dropout": 0.3},
    "epochs": 3,
    "precision": "float32",
}


@dataclass
class Worker:
    """What a worker does with a trial: as the proxy does, but without Ray."""

    reports: list[dict[str, Any]] = field(default_factory=list)
    weights: list[Mapping[str, Tensor]] = field(default_factory=list)
    printed: str = ""
    last: dict[str, Any] | None = None
    lost: bool = False
    stop_after: int = 1000
    """Reports after which the trial is stopped."""
    leave_after: int = 1000
    """Reports after which the worker is killed."""
    error: Exception | None = None
    """The error of each report."""
    keep: Path | None = None
    """Where the last checkpoint is copied to."""
    checkpoints: Sequence[tuple[str, Path | None, str] | Exception] = ()
    heard: list[str] = field(default_factory=list)
    """The words that it received."""

    def run(self, connection: Connection, task: dict[str, Any]) -> None:
        connection.send((messages.TRAIN, json.dumps(task)))
        offered = iter(self.checkpoints)
        while True:
            try:
                word, *values = connection.recv()
            except EOFError:
                self.lost = True
                return
            self.heard.append(word)
            if word == messages.CHECKPOINT:
                connection.send(next(offered, (None, None, "")))
            elif word == messages.REPORTED:
                report, folder = values
                self.reports.append(report)
                self.weights.append(read_state(folder)[0])
                if self.keep is not None:
                    shutil.copytree(folder, self.keep)
                if len(self.reports) >= self.leave_after:
                    connection.close()
                    return
                connection.send(self.error or len(self.reports) < self.stop_after)
            elif word == messages.PRINTED:
                self.printed += values[0]
            elif word == messages.ENDED:
                self.last = values[0]
                return


def task(seed: int = 0, **changes: Any) -> dict[str, Any]:
    trial = TRIAL | {"seed": seed} | changes
    return {
        "trial": TrialConfig.model_validate(trial).model_dump(mode="json"),
        "objective": {"metric": "val_loss", "mode": "min"},
        "objectives": ["val_loss"],
        "costly": [],
        "threads": 1,
        "cpu": 1,
        "gpu": 0,
        "ranks": 1,
        "at_once": 4,
        "teacher": "",
        "halves": False,
        "beside": True,
        "measures": False,
    }


def trained(*tasks: dict[str, Any], workers: Sequence[Worker] = (), host: Host | None = None) -> list[Worker]:
    """Train trials at the same time in a host of this process."""
    ended = list[int]()
    host = host or Host(ended.append)
    workers = list(workers) or [Worker() for _ in tasks]

    def train(worker: Worker, task: dict[str, Any]) -> None:
        ours, theirs = Pipe()
        proxied = Proxied(theirs)

        def serve() -> None:
            while (wanted := proxied.next_task()) is not None:
                host.train(wanted, proxied)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        worker.run(ours, task)
        ours.close()
        proxied.has_gone()
        thread.join(60)
        assert not thread.is_alive()

    with (
        redirect_stdout(PrintedByThread(sys.stdout)),
        redirect_stderr(PrintedByThread(sys.stderr)),
        ThreadPoolExecutor(len(tasks)) as pool,
    ):
        list(pool.map(train, workers, tasks))
    return list(workers)


def same(one: Worker, other: Worker) -> bool:
    """Whether two trials had the same weights, bit by bit, after each epoch."""
    assert len(one.weights) == len(other.weights) > 0
    pairs = zip(one.weights, other.weights, strict=True)
    return all(torch.equal(a[name], b[name]) for a, b in pairs for name in a)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def alone(one_thread: None) -> list[Worker]:
    """Three trials, one after another."""
    return [trained(task(seed))[0] for seed in range(3)]


def test_trials_beside_each_other_have_the_numbers_that_they_have_alone(alone: list[Worker]) -> None:
    together = trained(task(0), task(1), task(2), task(7, model={"kind": "mlp"}, optimizer={"kind": "adam"}))
    for one, other in zip(alone, together, strict=False):
        assert same(one, other)
        assert one.last == other.last == {STATUS: "completed", REASON: ""}
        losses = [[each["val_loss"] for each in worker.reports] for worker in (one, other)]
        assert losses[0] == losses[1]
    assert not same(together[0], together[1])


def test_images_are_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, load = list[Digits](), Digits.load

    def counted(data: Digits) -> Any:
        opened.append(data)
        return load(data)

    monkeypatch.setattr(Digits, "load", counted)
    data = TRIAL["data"]
    assert isinstance(data, dict)
    trained(task(0), task(1, data=data | {"batch_size": 32, "augment": {}}), task(2))
    assert len(opened) == 1
    trained(task(0), task(1, data=data | {"limit": 200}))
    assert len(opened) == 3


def test_a_trial_that_ends_early_leaves_the_others_alone(alone: list[Worker], monkeypatch: pytest.MonkeyPatch) -> None:

    def failing(config: TrialConfig, *arguments: Any, **named: Any) -> str:
        if config.seed == 10:
            raise ValueError("a fault of this trial")
        if config.seed == 11:
            torch.empty(2**60, dtype=torch.uint8)
        return fit(config, *arguments, **named)

    monkeypatch.setattr(hosted, "fit", failing)
    workers = [Worker(), Worker(), Worker(), Worker(), Worker(stop_after=1), Worker(leave_after=1)]
    tasks = [task(0), task(10), task(11), task(12, optimizer={"kind": "sgd", "lr": 1e30}), task(1), task(2)]
    ok, raised, memory, diverged, stopped, gone = trained(*tasks, workers=workers)
    assert same(ok, alone[0]) and ok.last is not None and ok.last[STATUS] == "completed"
    assert raised.last is not None and raised.last[STATUS] == "failed"
    assert raised.last[REASON] == "ValueError: a fault of this trial"
    assert "failing" in raised.last[TRACEBACK] and "a fault of this trial" in raised.printed
    assert memory.last is not None and memory.last[REASON].startswith("out of memory: a batch does not fit")
    assert diverged.last is not None and diverged.last[STATUS] == "diverged"
    assert stopped.last is None and len(stopped.reports) == 1
    assert gone.last is None and len(gone.reports) == 1
    assert "a fault" not in ok.printed


def test_a_trial_resumes_from_the_latest_checkpoint_that_can_be_read(alone: list[Worker], tmp_path: Path) -> None:
    folder = tmp_path / "first"
    trained(task(0), workers=[Worker(stop_after=1, keep=folder)])
    offered = [("gone", None, "is no checkpoint"), ("damaged", tmp_path, ""), ("first", folder, "")]
    (resumed,) = trained(task(0), workers=[Worker(checkpoints=offered)])
    assert [each["epoch"] for each in resumed.reports] == [2, 3]
    assert set(resumed.reports[0][DAMAGED]) == {"gone", "damaged"}
    assert all(torch.equal(resumed.weights[-1][name], each) for name, each in alone[0].weights[-1].items())


def test_one_that_is_crowded_out_goes_on_with_fewer(alone: list[Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    tried, both = list[int](), threading.Barrier(2)

    def crowded(config: TrialConfig, *arguments: Any, **named: Any) -> str:
        tried.append(config.seed or 0)
        if tried.count(config.seed or 0) == 1:
            both.wait(60)
            if config.seed == 1:
                raise MemoryError
        return fit(config, *arguments, **named)

    monkeypatch.setattr(hosted, "fit", crowded)
    host = Host(lambda status: pytest.fail("it has not failed"))
    one, other = trained(task(0), task(1), host=host)
    assert same(one, alone[0]) and same(other, alone[1])
    assert other.heard[:3] == [messages.CHECKPOINT, messages.WAITS, messages.BEGINS]
    assert other.heard.count(messages.BEGINS) == 2, "it waits for a place again"
    assert tried.count(1) == 2 and "beside 1 other trial: it goes on with fewer" in other.printed
    assert host._admission is not None and host._admission.most is None, "the next ones may be beside each other"


def test_a_device_that_fails_ends_the_process_and_its_log_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(*arguments: Any, **named: Any) -> str:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    ended = list[int]()
    monkeypatch.setattr(hosted, "fit", failed)
    monkeypatch.setattr(sys, "__stderr__", log := io.StringIO())
    (worker,) = trained(task(0), host=Host(ended.append))
    assert ended == [1] and "illegal memory access" in worker.printed
    assert "illegal memory access" in log.getvalue()


def test_temporary_checkpoints_are_deleted(alone: list[Worker]) -> None:
    prefix = f"{temporary._prefix()}{os.getpid()}-"
    assert not [each for each in Path(tempfile.gettempdir()).glob(f"{prefix}*") if (each / "model.pt").exists()]


def test_a_fault_of_ours_does_not_let_the_proxy_wait(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = Pipe()
    host = Host(lambda status: None)
    monkeypatch.setattr(host, "train", lambda task, proxied: 1 / 0)
    ours.send((messages.TRAIN, "{}"))
    server._train_on(host, Proxied(theirs))
    with pytest.raises(EOFError):
        ours.recv()
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_storage_that_does_not_answer_ends_the_trial_as_in_a_process_of_its_own() -> None:
    (away,) = trained(task(0), workers=[Worker(checkpoints=[ConnectionError("no storage")])])
    assert away.last is not None and (away.last[STATUS], away.last[REASON]) == ("failed", "ConnectionError: no storage")


def test_the_error_of_a_report_ends_the_trial_as_in_a_process_of_its_own() -> None:
    workers = [Worker(error=OSError(errno.ENOSPC, "No space left on device")), Worker(error=ValueError("odd"))]
    full, odd = trained(task(0), task(1), workers=workers)
    assert full.last == {STATUS: "interrupted", REASON: FULL}
    assert odd.last is not None and (odd.last[STATUS], odd.last[REASON]) == ("failed", "ValueError: odd")
    assert len(full.reports) == len(odd.reports) == 1
