"""The log of a trial's standard output and error, also of C code and of processes that it starts, in one file.

The file lies in the trial's folder, on any storage. The middle of a long one is cut out. A resumed trial appends to it.
No error of the log fails a trial.
"""

import contextlib
import ctypes
import os
import re
import socket
import sys
import threading
import time
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from tuner.storage import temporary
from tuner.trials.output_files import FILE

KEPT = 2**20
"""Bytes that a cut file keeps of its beginning, and as many of its end."""

_SLACK = 2**20  # bytes above twice `KEPT` before the next cut, since a cut for each line would be slow
_LOOK = 0.5  # seconds between checks of the size
_UPLOAD = 10.0  # seconds between uploads to a storage that is not a local folder
_LAST = 10.0  # seconds that the end of a trial waits for the last upload
_CUT = re.compile(rb"\n\[tuner: (\d+) bytes were cut here\]\n")


class OutputLog:
    """Writes file descriptors 1 and 2 of this process, and of processes that it starts meanwhile, to a file."""

    def __init__(self, files: Any, path: str) -> None:
        """Create the log; entering the context opens it.

        Args:
            files: The pyarrow file system of the trial's storage.
            path: The file's path in it. An existing file is appended to.
        """
        self._files = files
        self._path = path
        self._is_local = files.type_name == "local"
        self._leaving = contextlib.ExitStack()
        self._file = -1
        self._over = threading.Event()
        self._keeping = threading.Thread(target=self._keep, name="output", daemon=True)
        self._is_open = False

    def __enter__(self) -> "OutputLog":
        try:
            self._file = os.open(self._local(), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._cut, self._head = self._cut_before()
        except Exception:  # such as a full disk or an unreachable storage: the trial trains without a log
            self._close()
            return self
        self._stored = self._state()
        _flush()
        self._before = sys.stdout, sys.stderr, os.dup(1), os.dup(2)
        for number in (1, 2):
            os.dup2(self._file, number)
        if self._stored[0]:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
            with contextlib.suppress(OSError):
                os.write(self._file, f"[tuner: continued at {when} UTC on {socket.gethostname()}]\n".encode())
        sys.stdout, sys.stderr = _error_ignoring_stream(1), _error_ignoring_stream(2)
        self._is_open = True
        self._keeping.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._is_open:
            return
        _flush()
        sys.stdout, sys.stderr, *before = self._before
        for number, earlier in enumerate(before, start=1):
            os.dup2(earlier, number)
            os.close(earlier)
        self._over.set()
        self._keeping.join(_LAST)

    def _local(self) -> Path:
        """Return the local file to write to: the file itself, or a temporary copy of the stored one."""
        if self._is_local:
            file = Path(self._path)
            file.parent.mkdir(parents=True, exist_ok=True)
            return file
        file = self._leaving.enter_context(temporary.folder()) / FILE
        with contextlib.suppress(FileNotFoundError), self._files.open_input_stream(self._path) as stream:
            file.write_bytes(stream.read())
        return file

    def _keep(self) -> None:
        """Until the trial ends, cut the file when it is long, and upload it unless the storage is local."""
        copied = time.monotonic()
        is_over = False
        while not is_over:
            is_over = self._over.wait(_LOOK)
            with contextlib.suppress(Exception):
                self._shorten()
            if is_over or time.monotonic() - copied > _UPLOAD:
                copied = time.monotonic()
                with contextlib.suppress(Exception):
                    self._store()
        self._close()

    def _shorten(self) -> None:
        """Cut the middle out of a long file. Concurrent writers append, wherever the end is by then."""
        size = os.fstat(self._file).st_size
        if size <= 2 * KEPT + _SLACK:
            return
        if self._head is None:
            start = os.pread(self._file, KEPT, 0)
            self._head = start.rfind(b"\n") + 1 or len(start)
        end = os.pread(self._file, KEPT, size - KEPT)
        end = end[end.find(b"\n") + 1 :]
        self._cut += size - self._head - len(end)
        os.ftruncate(self._file, self._head)
        rest = b"\n[tuner: %d bytes were cut here]\n" % self._cut + end
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def _cut_before(self) -> tuple[int, int | None]:
        """Return how many bytes an earlier process cut out, and the length of the beginning; None if uncut."""
        if os.fstat(self._file).st_size <= KEPT:
            return 0, None
        found = _CUT.search(os.pread(self._file, KEPT + 100, 0))
        return (int(found[1]), found.start()) if found else (0, None)

    def _store(self) -> None:
        """Upload the file; delete a local one that stayed empty when the trial ends."""
        size, _ = state = self._state()
        if self._is_local:
            if not size and self._over.is_set():
                Path(self._path).unlink()
                Path(self._path).parent.rmdir()  # fails, and changes nothing, if it has other files
        elif state != self._stored:
            with self._files.open_output_stream(self._path) as stream:
                stream.write(os.pread(self._file, size, 0))
            self._stored = state

    def _state(self) -> tuple[int, int]:
        """Return the file's size and the time of its last change."""
        status = os.fstat(self._file)
        return status.st_size, status.st_mtime_ns

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._leaving.close()


class _ErrorIgnoringFile(FileIO):
    """A file descriptor that ignores errors such as a full disk: no print fails a trial."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def _error_ignoring_stream(number: int) -> TextIO:
    file = BufferedWriter(_ErrorIgnoringFile(number, "w", closefd=False))
    return TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _flush() -> None:
    """Flush the buffers of Python and of the C library."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    with contextlib.suppress(Exception):
        ctypes.CDLL(None).fflush(None)
