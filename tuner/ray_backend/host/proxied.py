"""The host's end of a connection to a proxy: the session of its trial."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from threading import RLock
from typing import Any

from tuner.errors import Damaged, Problem
from tuner.ray_backend.host import messages
from tuner.ray_backend.worker.session import Lost, Stopped


class Proxied:
    """A proxy, which is connected as long as this object is there, and the session of the trial that it passes on.

    Args:
        connection: The connection to it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.descriptor = connection.fileno()
        self._lock = RLock()  # a trial saves and reports in a second thread
        self._is_gone = False

    def next_task(self) -> dict[str, Any] | None:
        """Wait for the task of the next trial; None if the proxy has gone."""
        try:
            _, task = self._connection.recv()
        except (EOFError, OSError):
            return None
        loaded: dict[str, Any] = json.loads(task)
        return loaded

    def has_gone(self) -> None:
        """Note that the proxy has gone: its trial ends at the next batch."""
        self._is_gone = True

    def look(self) -> None:
        """Raise Lost if the proxy has gone."""
        if self._is_gone:
            raise Lost("its worker has ended")

    def hang_up(self) -> None:
        """End the connection."""
        with socket.socket(fileno=os.dup(self.descriptor)) as other, suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)

    def print(self, text: str) -> None:
        """Pass on what the trial has printed."""
        self._send(messages.PRINTED, text)

    def end(self, last: dict[str, Any] | None) -> None:
        """Pass on the entries of the last report; None if the trial was stopped."""
        self._send(messages.ENDED, last)

    def wait_for_place(self) -> None:
        """Tell that the trial waits for its place."""
        self._send(messages.WAITS)

    def begin(self) -> None:
        """Tell that it trains from now on."""
        self._send(messages.BEGINS)

    def report(self, values: dict[str, Any], folder: Path | None) -> None:
        """Report; see `Session`."""
        if not self._asked(messages.REPORTED, values, folder):
            raise Stopped

    def checkpoints(self) -> Iterator[tuple[str, AbstractContextManager[Path]]]:
        """The checkpoints to resume from; see `Session`."""
        is_first = True
        while True:
            path, folder, damage = self._asked(messages.CHECKPOINT, is_first)
            if path is None:
                return
            yield path, _there(path, folder, damage)
            is_first = False

    def _asked(self, *message: Any) -> Any:
        with self._lock:
            self._send(*message)
            try:
                answer = self._connection.recv()
            except (EOFError, OSError):
                raise Lost("its worker has ended") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _send(self, *message: Any) -> None:
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:
                self._is_gone = True
                raise Lost("its worker has ended") from None


@contextmanager
def _there(path: str, folder: Path | None, damage: str) -> Iterator[Path]:
    if folder is None:
        raise Damaged(Problem(damage, where=path))
    yield folder
