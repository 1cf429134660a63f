"""The driver's side of the writer's process, with programs of our own in the writer's place."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tuner.tracking.record import writer_client
from tuner.tracking.record.writer_client import WriterClient

Start = Callable[[str], WriterClient]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts a writer that opens a record and does what its program says."""

    def start_writer(program: str) -> WriterClient:
        monkeypatch.setattr(writer_client, "_WRITER", f"import sys\nprint('{{}}', flush=True)\n{program}")
        writer = WriterClient(os.environ)
        assert writer.open({"do": "open"}, lambda why: None) == {}
        return writer

    return start_writer


def test_a_writer_that_is_killed_at_its_last_word_is_told_of(start: Start) -> None:
    writer = start("sys.stdin.read(); sys.stdout.write('{\"fail'); sys.exit('killed')")
    assert writer.close() == {"failures": ["the process that writes ended: killed"]}


def test_what_is_put_to_a_writer_that_has_ended_is_no_error(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    writer = start("sys.exit('killed')")
    writer._process.wait()
    for _ in range(3):
        writer.put({"do": "metrics", "values": "x" * 100})
        time.sleep(0.2)  # each is a write of its own
    assert writer.close() == {"failures": ["the process that writes ended: killed"]}
    assert not raised


def test_what_cannot_be_written_down_costs_nothing_else(start: Start) -> None:
    class Odd:
        def __str__(self) -> str:
            raise LookupError("it broke")

    writer = start("print('{\"failures\": [%d]}' % len(sys.stdin.readlines()))")
    for value in (1, Odd(), 2):
        writer.put({"do": "metrics", "trial": 3, "values": value})
    assert writer.close() == {"failures": ["metrics of trial 3: it broke", 3]}  # the opening is one
