"""A proxy's end of a connection to a host."""

from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tuner.ray_backend.worker.session import Lost


class Silent(Exception):
    """The host has sent nothing for too long."""


@dataclass(frozen=True)
class Link:
    """A connection to a host. `send` and `received` raise Lost if it has ended.

    Args:
        connection: The connection.
        log: The file that the host logs to.
    """

    connection: Connection
    log: Path

    @property
    def is_idle(self) -> bool:
        """Whether the host is there, and has nothing to say, as between two trials."""
        return not self.connection.poll()

    def send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except OSError as error:
            raise self._lost(error) from None

    def received(self, seconds: float | None = None) -> tuple[Any, ...]:
        """The next message.

        Raises:
            Silent: There is none for so many seconds.
        """
        try:
            if not self.connection.poll(seconds):
                raise Silent
            received: tuple[Any, ...] = self.connection.recv()
            return received
        except (EOFError, OSError) as error:
            raise self._lost(error) from None

    def close(self) -> None:
        self.connection.close()

    def _lost(self, error: Exception) -> Lost:
        return Lost(f"the process that trained it beside others has ended ({type(error).__name__}): see {self.log}")
