"""Trainings of one process on streams of a GPU that is only pretended: torch hands out the same few in turn."""

import threading
from contextlib import ExitStack
from itertools import count

import pytest
import torch

from tuner.train.step.streams import MOST, Streams


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    """The streams of a GPU, which are numbers: torch makes them in a pool, and goes around."""
    asked = count()
    monkeypatch.setattr(torch.cuda, "Stream", lambda index: f"stream {next(asked) % MOST} of GPU {index}")
    return Streams(0)


def test_no_stream_is_lent_twice_at_once(streams: Streams) -> None:
    """One training goes on while many others come and go: with torch's own order they would share its stream."""
    with streams.lent() as first:
        for _ in range(3 * MOST):
            with streams.lent() as other, streams.lent() as another:
                assert len({first, other, another}) == 3


def test_as_many_are_lent_as_torch_has(streams: Streams) -> None:
    torch.cuda.Stream(0)  # type: ignore[no-untyped-call]  # somebody else has taken one, whichever it is
    with ExitStack() as lent:
        taken = {lent.enter_context(streams.lent()) for _ in range(MOST)}
        assert len(taken) == MOST and None not in taken
        assert lent.enter_context(streams.lent()) is None
    with streams.lent() as free:
        assert free is not None


def test_a_thread_gets_its_last_stream_again(streams: Streams) -> None:
    with streams.lent() as mine:
        pass
    found = []

    def other() -> None:
        with streams.lent() as first, streams.lent():
            found.append(first)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(60)
    assert found == [mine], "it is idle"
    with streams.lent() as again:
        assert again == mine, "the other thread has given another one back since"
