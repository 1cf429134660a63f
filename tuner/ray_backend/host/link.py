"""A proxy's end of a connection to a host."""

import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tuner.ray_backend.host import pulse
from tuner.ray_backend.host.pulse import Pulse
from tuner.ray_backend.worker.session import Lost


class Silent(Exception):
    """The host has sent nothing for too long."""


@dataclass(frozen=True)
class Link:
    """A connection to a host. `send` and `received` raise Lost if it has ended, or hangs.

    Args:
        connection: The connection.
        log: The file that the host logs to.
        pulse: The pulse of the host; None to wait for it whether it hangs or not.
    """

    connection: Connection
    log: Path
    pulse: Pulse | None = None

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
            self._wait(seconds)
            received: tuple[Any, ...] = self.connection.recv()
            return received
        except (EOFError, OSError) as error:
            raise self._lost(error) from None

    def _wait(self, seconds: float | None) -> None:
        """Wait for the next message, and look at the host's pulse meanwhile."""
        if self.pulse is None:
            if not self.connection.poll(seconds):
                raise Silent
            return
        due = None if seconds is None else time.monotonic() + seconds
        while not self.connection.poll(
            pulse.EVERY if due is None else min(pulse.EVERY, max(0.0, due - time.monotonic()))
        ):
            if due is not None and time.monotonic() >= due:
                raise Silent
            if not self.pulse.look():
                raise Lost(f"the process that trained it beside others hung, and was ended: {self.log} says where")

    def close(self) -> None:
        self.connection.close()

    def _lost(self, error: Exception) -> Lost:
        return Lost(f"the process that trained it beside others has ended ({type(error).__name__}): see {self.log}")
