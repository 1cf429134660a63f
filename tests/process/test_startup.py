"""Garbage collection waits while a process starts, and for nothing else."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from tuner.process import startup
from tuner.process.startup import collection_postponed, postpone_collection, resume_collection


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def collections() -> Iterator[list[int]]:
    """The generations that are collected."""
    seen: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            seen.append(info["generation"])

    thresholds = gc.get_threshold()
    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)
    assert gc.get_threshold() == thresholds


def test_nothing_is_collected_while_a_process_starts(collections: list[int]) -> None:
    with collection_postponed():
        collections.clear()
        made = [[number] for number in range(100_000)]
        assert not collections
    frozen = gc.get_freeze_count()
    assert frozen >= len(made)  # and what it has made is never gone through again


def test_garbage_is_collected_afterwards(collections: list[int]) -> None:
    postpone_collection()
    postpone_collection()  # once more changes nothing
    resume_collection()
    lost = weakref.ref(Cycle())
    kept = [[number] for number in range(100_000)]
    assert collections and lost() is None and kept


@pytest.mark.slow
def test_a_process_that_never_says_that_it_has_started_collects_garbage_all_the_same(
    collections: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "_OBJECTS", 50_000)
    postpone_collection()
    kept = [[number] for number in range(100_000)]
    assert collections and kept
    frozen = gc.get_freeze_count()
    resume_collection()  # it was resumed by itself
    assert gc.get_freeze_count() <= frozen  # another thread may drop what is frozen; the rest of `kept` would be 50,000
