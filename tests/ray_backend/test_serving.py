"""Replicas on a Ray that was there before."""

import asyncio
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import eventually

from tuner.errors import UserError
from tuner.ray_backend import serving
from tuner.ray_backend.cluster.resources import ClusterResources
from tuner.ray_backend.serving import Replicas, Serving, Share

pytestmark = pytest.mark.slow


class Pid:
    """Answers with its process, after as many seconds as it is asked for; what its file says may end the process."""

    def __init__(self, folder: Path) -> None:
        if (folder / "what").read_text() == "exit":
            os._exit(3)
        self._file = (folder / "what").read_text()

    def describe(self) -> str:
        return self._file

    async def answer(self, asked: Sequence[Any]) -> Sequence[Any]:
        await asyncio.sleep(max(asked))
        return [os.getpid() for _ in asked]


@pytest.fixture
def running(started_ray: ClusterResources) -> Iterator[Serving]:
    from ray import cloudpickle, serve

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # which replicas cannot import
    made = Serving()
    yield made
    made.end()
    assert not serve.status().applications, "nothing of it is left"
    serve.shutdown()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "what").write_text("one")
    return tmp_path


def ask(replicas: Replicas, count: int, seconds: float) -> set[Any]:
    async def all_of() -> set[Any]:
        answers = await asyncio.gather(*(replicas.answer([seconds]) for _ in range(count)))
        return {each for [each] in answers}

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, all_of()).result(120)


def test_several_replicas_answer_as_soon_as_it_has_started(running: Serving, files: Path) -> None:
    replicas, described = running.start("pid", Pid, files, Share(2, 2))
    assert described == "one" and len(ask(replicas, 40, 0.2)) == 2


def test_as_many_as_the_load_needs(running: Serving, files: Path) -> None:
    replicas, _ = running.start("pid", Pid, files, Share(1, 2))
    assert len(ask(replicas, 40, 0.1)) == 1
    ended, seen = threading.Event(), set[Any]()

    def ask_on() -> None:
        while not ended.is_set():
            seen.update(ask(replicas, 40, 0.5))

    client = threading.Thread(target=ask_on)
    client.start()
    try:
        assert eventually(lambda: len(seen) == 2, 120)
    finally:
        ended.set()
        client.join(60)


def test_a_process_that_ends_as_it_starts(running: Serving, files: Path) -> None:
    (files / "what").write_text("exit")
    with pytest.raises(RuntimeError, match="pid"):
        running.start("pid", Pid, files, Share(2, 2))


def test_no_room(running: Serving, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_STARTED", 5.0)
    with pytest.raises(UserError, match="1 replica with 1000 CPU cores and 0 GPUs did not start within 5 seconds"):
        running.start("pid", Pid, files, Share(cpus=1000))
