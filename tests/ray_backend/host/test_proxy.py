"""What a proxy does between its host and Ray, which are only pretended."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pyarrow.fs import LocalFileSystem
from ray import tune

from tuner.ray_backend.host import messages, proxy, starting
from tuner.ray_backend.host.link import Link
from tuner.ray_backend.worker.session import Lost, Stopped, hung
from tuner.report_keys import REASON, STATUS


class PretendedHost:
    """Sends messages one after another; what it is sent is kept."""

    def __init__(self, *sent: tuple[Any, ...]) -> None:
        self.to_send = list(sent)
        self.got: list[Any] = []
        self.there: list[bool] = []
        """Whether the folder of the checkpoint was there when each message was sent."""
        self.waited: list[float | None] = []
        """For how long each message was waited for."""

    def send(self, message: Any) -> None:
        self.got.append(message)

    def received(self, seconds: float | None = None) -> tuple[Any, ...]:
        self.waited.append(seconds)
        folders = [each[1] for each in self.got if isinstance(each, tuple) and len(each) == 3 and each[1] is not None]
        self.there.append(bool(folders) and folders[-1].exists())
        return self.to_send.pop(0)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint that Ray has, which is downloaded to a folder for as long as it is used."""
    folder = tmp_path / "job" / "trial-0000" / "checkpoint_000000"
    folder.mkdir(parents=True)

    class Stored:
        path, filesystem = str(folder), LocalFileSystem()

        @contextmanager
        def as_directory(self) -> Iterator[str]:
            copy = tmp_path / "downloaded"
            copy.mkdir()
            yield str(copy)
            copy.rmdir()

    monkeypatch.setattr(tune, "get_checkpoint", Stored)
    return folder


def test_a_checkpoint_is_there_until_the_trial_reports(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reports: list[Any] = []
    monkeypatch.setattr(tune, "report", lambda values, checkpoint: reports.append((values, checkpoint)))
    printed, reported = (messages.PRINTED, "it waits\n"), (messages.REPORTED, {"loss": 1.0}, None)
    before = (messages.CHECKPOINT, True), (messages.WAITS,), printed, (messages.BEGINS,)
    host = PretendedHost(*before, reported, (messages.ENDED, {"status": "completed"}))
    assert proxy._relayed(host, "{}") == {"status": "completed"}  # type: ignore[arg-type]
    assert host.there == [False, True, True, True, True, False]
    assert host.got == [(messages.TRAIN, "{}"), (str(checkpoint), checkpoint.parents[2] / "downloaded", ""), True]
    assert reports == [({"loss": 1.0}, None)] and capsys.readouterr().out == "it waits\n"


def test_earlier_checkpoints_are_asked_for_one_by_one_and_from_the_latest_again(checkpoint: Path) -> None:
    asks = [(messages.CHECKPOINT, first) for first in (True, False, True)]
    host = PretendedHost(*asks, (messages.ENDED, None))
    assert proxy._relayed(host, "{}") is None  # type: ignore[arg-type]
    paths = [each[0] for each in host.got[1:]]
    assert paths == [str(checkpoint), None, str(checkpoint)]


@pytest.mark.parametrize(
    ("error", "answer"), [(SystemExit(0), False), (OSError(28, "No space left on device"), OSError)]
)
def test_what_ray_says_to_a_report_is_passed_on(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, answer: Any
) -> None:
    def report(values: Any, checkpoint: Any) -> None:
        raise error

    monkeypatch.setattr(tune, "report", report)
    host = PretendedHost((messages.REPORTED, {}, None), (messages.ENDED, None))
    proxy._relayed(host, "{}")  # type: ignore[arg-type]
    assert host.got[-1] is answer or isinstance(host.got[-1], answer)


def test_an_error_that_cannot_be_sent_is_sent_in_words() -> None:
    class Odd(Exception):
        def __reduce__(self) -> Any:
            raise TypeError("no")

    error = proxy._sendable(Odd("of a library"))
    assert type(error) is RuntimeError and "Odd: of a library" in str(error)


def test_a_storage_that_does_not_answer_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise ConnectionError("no storage")

    monkeypatch.setattr(tune, "get_checkpoint", away)
    host = PretendedHost((messages.CHECKPOINT, True), (messages.ENDED, None))
    proxy._relayed(host, "{}")  # type: ignore[arg-type]
    assert isinstance(host.got[-1], ConnectionError)


def test_the_timeout_does_not_count_while_a_trial_waits_for_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "report", lambda values, checkpoint: None)
    words = messages.WAITS, messages.BEGINS, messages.REPORTED, messages.WAITS, messages.BEGINS, messages.ENDED
    values: dict[str, tuple[Any, ...]] = {messages.REPORTED: ({}, None), messages.ENDED: (None,)}
    host = PretendedHost(*((word, *values.get(word, ())) for word in words))
    proxy._relayed(host, "{}", timeout=60)  # type: ignore[arg-type]
    assert [each is not None for each in host.waited] == [False, False, True, True, False, True]


ENDED = {STATUS: "completed", REASON: ""}


@dataclass
class Hosts:
    """The hosts that a proxy connects to, one after another; each sends some messages at once."""

    messages: list[tuple[Any, ...]] = field(default_factory=lambda: [(messages.ENDED, ENDED)])
    connected: list[Connection] = field(default_factory=list)
    reports: list[Any] = field(default_factory=list)

    def connect(self, **host: str) -> Link:
        ours, its = Pipe()
        self.connected.append(its)
        for message in self.messages:
            its.send(message)
        return Link(ours, Path("/session/logs/host-1.log"))


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    hosts = Hosts()
    monkeypatch.setattr(starting, "connected", hosts.connect)
    monkeypatch.setattr(tune, "report", lambda values, checkpoint=None: hosts.reports.append(values))
    yield hosts
    proxy._link = None


def train(timeout: float | None = None) -> None:
    proxy.train_hosted({"task": json.dumps({"host": {}, "timeout": timeout})})


def test_a_connection_is_kept_for_the_next_trial(hosts: Hosts) -> None:
    train()
    (host,) = hosts.connected

    def answer() -> None:
        assert host.recv() == host.recv()  # the tasks of both trials
        host.send((messages.ENDED, ENDED))

    thread = Thread(target=answer)
    thread.start()
    train()
    thread.join()
    assert len(hosts.connected) == 1 and hosts.reports == [ENDED, ENDED]


def test_a_host_that_ended_between_two_trials_costs_none_of_them(hosts: Hosts) -> None:
    train()
    hosts.connected[0].close()
    train()
    assert len(hosts.connected) == 2 and hosts.reports == [ENDED, ENDED]


def test_a_host_that_ends_loses_its_trial_and_says_where_it_logs(hosts: Hosts) -> None:
    hosts.messages = []
    thread = Thread(target=lambda: _wait_for(hosts).close())
    thread.start()
    with pytest.raises(Lost, match=r"/session/logs/host-1\.log"):
        train()
    thread.join()
    assert proxy._link is None


def _wait_for(hosts: Hosts) -> Connection:
    while not hosts.connected:
        time.sleep(0.01)
    hosts.connected[0].recv()
    return hosts.connected[0]


def test_a_trial_that_trains_without_a_report_hangs_and_its_host_is_told(hosts: Hosts) -> None:
    hosts.messages = [(messages.BEGINS,)]
    train(timeout=0.1)
    assert hosts.reports == [{STATUS: "failed", REASON: hung(0.1)}]
    (host,) = hosts.connected
    host.recv()
    with pytest.raises(EOFError):
        host.recv()


def test_one_that_ray_stops_is_stopped(hosts: Hosts) -> None:
    hosts.messages = [(messages.ENDED, None)]
    with pytest.raises(Stopped):
        train()
    assert not hosts.reports and proxy._link is not None
