"""The driver's side of the writer's process, with programs of our own in the writer's place."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import experiment

from tuner.tracking.record import writer_client
from tuner.tracking.record.messages import JournalState, Opened, Written
from tuner.tracking.record.opening import opening
from tuner.tracking.record.writer_client import WriterClient
from tuner.trials.events import TrialReported

Start = Callable[[str], WriterClient]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts a writer that opens a record and does what its program says."""

    def start_writer(program: str) -> WriterClient:
        opened = Opened(experiment="1", parent="a", view="")
        said = f"import sys\nprint({opened.model_dump_json()!r}, flush=True)\n"
        monkeypatch.setattr(writer_client, "_WRITER", said + program)
        writer = WriterClient(os.environ)
        journal = JournalState(job="job", folder="runs/job")
        assert writer.open(opening(experiment(), "sqlite:///x.db", journal, Path(), 2, {}), lambda why: None) == opened
        return writer

    return start_writer


def reported(trial: int, value: Any) -> TrialReported:
    report: Any = {"epoch": 1, "loss": value}
    return TrialReported.model_construct(event="reported", time=1.0, trial=trial, report=report)


def test_a_writer_that_is_killed_at_its_last_word_is_told_of(start: Start) -> None:
    writer = start("sys.stdin.read(); sys.stdout.write('{\"fail'); sys.exit('killed')")
    assert writer.close() == Written(failures=["the process that writes ended: killed"])


@pytest.mark.slow
def test_what_is_put_to_a_writer_that_has_ended_is_no_error(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    writer = start("sys.exit('killed')")
    writer._process.wait()
    for _ in range(3):
        writer.put(reported(3, "x" * 100))
        time.sleep(0.2)  # each is a write of its own
    assert writer.close() == Written(failures=["the process that writes ended: killed"])
    assert not raised


def test_what_cannot_be_written_down_costs_nothing_else(start: Start) -> None:
    class Odd:
        def __str__(self) -> str:
            raise LookupError("it broke")

    last = Written(failures=["COUNT"]).model_dump_json()
    writer = start(f"print({last!r}.replace('COUNT', str(len(sys.stdin.readlines()))))")
    for value in (1, Odd(), 2):
        writer.put(reported(3, value))
    assert writer.close().failures == ["reported of trial 3: it broke", "3"]  # the opening is one
