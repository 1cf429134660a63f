"""How a proxy finds or starts its host, and how a host ends."""

import os
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Client, Listener
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tuner.ray_backend.host import pulse, server, starting
from tuner.ray_backend.host.address import Address, locked
from tuner.ray_backend.host.link import Silent
from tuner.ray_backend.worker.session import Lost

LISTENS = """
import os, sys, time
from multiprocessing.connection import Listener
listener = Listener(sys.argv[1], "AF_UNIX")
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
connection = listener.accept()
connection.send((os.getpid(),))
connection.poll(60)
"""

HANGS = """
import ctypes, faulthandler, os, sys
from multiprocessing.connection import Listener
from tuner.ray_backend.host.pulse import SAY

def call_of_cuda():
    ctypes.PyDLL(None).sleep(600)

listener = Listener(sys.argv[1], "AF_UNIX")
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
faulthandler.register(SAY, sys.__stderr__)
call_of_cuda()
"""


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a Ray's session, of which this process is a worker."""
    (tmp_path / "logs").mkdir()
    node = SimpleNamespace(get_session_dir_path=lambda: str(tmp_path))
    context = SimpleNamespace(get_job_id=lambda: "01", get_node_id=lambda: "ab")
    monkeypatch.setattr(starting, "internal", lambda name: SimpleNamespace(_global_node=node))
    monkeypatch.setattr("ray.get_runtime_context", lambda: context)
    yield tmp_path


def socket_of(session: Path) -> Path:
    (found,) = (each for each in session.glob("host-*/*") if each.suffix != ".lock")
    return found


def script(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a script be that of hosts."""
    (folder / "main.py").write_text(text)
    monkeypatch.setattr(starting, "main", SimpleNamespace(__file__=str(folder / "main.py")))


@pytest.mark.slow
def test_the_first_proxy_starts_a_host_which_outlives_it(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(session, LISTENS, monkeypatch)
    link = starting.connected("job")
    host = psutil.Process(*link.received(60))
    assert os.getpid() not in [each.pid for each in host.parents()], "Ray would end it with its worker"
    assert starting.connected("job").connection is not None, "the second one connects to the same host"
    link.close()
    host.wait(60)


@pytest.mark.slow
def test_a_host_that_ends_before_it_listens_is_noticed_at_once(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "_LISTENS", 3600.0)
    script(session, 'raise ImportError("a library is missing")', monkeypatch)
    with pytest.raises(Lost, match=r"host-.*\.log on its node says why"):
        starting.connected("job")
    (log,) = (session / "logs").iterdir()
    assert "a library is missing" in log.read_text()


@pytest.mark.slow
def test_a_host_that_ends_before_it_trains_is_lost(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(session, LISTENS.replace("connection.send((os.getpid(),))", "raise ImportError"), monkeypatch)
    with pytest.raises(Lost, match=r"has ended .*host-.*\.log"):
        starting.connected("job").received(60)


@pytest.mark.slow
def test_a_host_that_hangs_is_ended_and_replaced(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped: it runs no Python, as one whose call of CUDA does not return and keeps Python's lock."""
    monkeypatch.setattr(pulse, "EVERY", 0.2)
    monkeypatch.setattr(pulse, "_MISSED", 25)
    link = starting.connected("job")
    began = socket_of(session).stat().st_mtime_ns
    while socket_of(session).stat().st_mtime_ns == began:
        time.sleep(0.01)  # it imports
    with pytest.raises(Silent):
        link.received(6)
    host = psutil.Process(pulse._process_of(link.connection))
    host.suspend()
    with pytest.raises(Lost, match=r"hung, and was ended: .*host-.*\.log says where"):
        link.received()
    host.wait(60)
    other = starting.connected("job")
    replacement = psutil.Process(pulse._process_of(other.connection))
    assert replacement.pid != host.pid
    with pytest.raises(Silent):
        other.received(0.5)
    other.close()
    link.close()
    replacement.kill()
    replacement.wait(60)


@pytest.mark.slow
def test_the_log_says_where_a_host_hangs(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its main thread is in C code that keeps Python's lock."""
    monkeypatch.setattr(pulse, "EVERY", 0.2)
    monkeypatch.setattr(pulse, "_MISSED", 5)
    script(session, HANGS, monkeypatch)
    link = starting.connected("job")
    with pytest.raises(Lost, match="hung"):
        link.received()
    (log,) = (session / "logs").iterdir()
    assert "in call_of_cuda" in log.read_text()
    link.close()


def test_no_room_for_a_host_is_said(session: Path) -> None:
    (session / "logs").rmdir()
    with pytest.raises(Lost, match="cannot be started: FileNotFoundError"):
        starting.connected("job")


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Address:
    monkeypatch.setattr(server, "_ALONE", 0.1)
    monkeypatch.setattr(server, "_AWAKE", 0.02)
    return Address(tmp_path / "socket", tmp_path / "log")


def watched(address: Address, listener: Listener | None = None) -> threading.Thread:
    """A thread that serves as the process of a host does, and ends where that ends."""
    listener = listener or Listener(str(address.socket), "AF_UNIX", backlog=64)
    host: Any = SimpleNamespace(train=lambda task, proxied: proxied.end(task))
    thread = threading.Thread(target=server._watch, args=(listener, host), daemon=True)
    thread.start()
    return thread


def test_a_host_ends_when_it_has_no_proxy_and_leaves_its_address(address: Address) -> None:
    thread = watched(address)
    connection = Client(str(address.socket), "AF_UNIX")
    connection.send(("train", "{}"))
    assert connection.recv() == ("ended", {})
    assert thread.is_alive()
    connection.close()
    thread.join(60)
    assert not thread.is_alive() and not address.socket.exists()


def test_a_host_does_not_end_while_a_proxy_connects(address: Address) -> None:
    with locked(address.socket):
        thread = watched(address)
        time.sleep(0.5)  # longer than it stays without a proxy
        connection = Client(str(address.socket), "AF_UNIX")
    connection.send(("train", "{}"))
    assert connection.recv() == ("ended", {})
    connection.close()
    thread.join(60)
    assert not thread.is_alive()


def test_one_that_has_connected_already_is_served(address: Address) -> None:
    listener = Listener(str(address.socket), "AF_UNIX", backlog=64)
    with Client(str(address.socket), "AF_UNIX"):
        assert not server._is_closed(listener) and address.socket.exists()
        listener.accept().close()
        assert server._is_closed(listener) and not address.socket.exists()


def test_a_host_that_can_have_no_further_thread_trains_on(
    address: Address, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    thread = watched(address)
    with Client(str(address.socket), "AF_UNIX") as first:
        first.send(("train", "{}"))
        assert first.recv() == ("ended", {})

        def none(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as full:
            full.setattr(threading.Thread, "start", none)
            with Client(str(address.socket), "AF_UNIX") as second, pytest.raises((EOFError, OSError)):
                second.recv()
        first.send(("train", "{}"))
        assert first.recv() == ("ended", {}) and thread.is_alive()
        with Client(str(address.socket), "AF_UNIX") as third:
            third.send(("train", "{}"))
            assert third.recv() == ("ended", {})
    thread.join(60)
    assert "can't start new thread" in capsys.readouterr().out


def test_a_host_whose_session_is_deleted_ends(address: Address) -> None:
    listener = Listener(str(address.socket), "AF_UNIX")
    thread = watched(address, listener)
    address.socket.unlink()
    thread.join(60)
    address.socket.touch()
    listener.close()
    assert not thread.is_alive()
