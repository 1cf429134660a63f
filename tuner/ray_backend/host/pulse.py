"""The pulse of a host: it sets the time of its socket's file again and again, which shows that it runs Python.

Where a call of CUDA does not return and keeps Python's lock, none of its threads runs, nor ends it. Its proxies do.
"""

import os
import signal
import socket
import struct
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

EVERY = 10.0
"""Seconds after which a proxy that waits for its host looks again."""
_MISSED = 30
"""Looks in a row without a beat after which a host hangs: five minutes. Where all processes were suspended for longer,
a host beats again before the second look."""
SAY = signal.SIGUSR2
"""The signal at which a host writes to its log what each of its threads does, also without Python's lock."""
_SAYS = 1.0
"""Seconds for that."""


def beat(file: Path) -> None:
    """Show that this process, which is a host, runs Python.

    Args:
        file: The path of its socket.
    """
    with suppress(OSError):  # the session of its Ray has been deleted
        os.utime(file)


class Pulse:
    """The pulse of a host, as a proxy sees it.

    Args:
        connection: The connection to the host, by which its process is known.
        file: The path of its socket.
    """

    def __init__(self, connection: Connection, file: Path) -> None:
        self._file = file
        self._host = _process_of(connection)
        self._beat = self._last()
        self._missed = 0

    def look(self) -> bool:
        """Look whether the host lives; one that hangs is ended. It is called every `EVERY` seconds, or less often."""
        last = self._last()
        if last != self._beat or last is None:
            self._beat, self._missed = last, 0
            return True
        self._missed += 1
        if self._missed < _MISSED:
            return True
        self._end()
        return False

    def _last(self) -> int | None:
        """When the host has beaten last, in nanoseconds; None if that cannot be seen."""
        try:
            return self._file.stat().st_mtime_ns
        except OSError:
            return None

    def _end(self) -> None:
        with suppress(ProcessLookupError):  # another proxy was faster
            os.kill(self._host, SAY)
            time.sleep(_SAYS)
            os.kill(self._host, signal.SIGKILL)


def _process_of(connection: Connection) -> int:
    """The id of the process that listens at the other end."""
    form = "3i"
    with socket.socket(fileno=os.dup(connection.fileno())) as ours:
        sent = ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(form))
    process: int = struct.unpack(form, sent)[0]
    return process
