"""What a trial prints: its standard output and error, also of C code and of processes that it starts, in one file.

The file lies in the trial's folder, wherever that is stored. It keeps its beginning and its end, and goes on where the
trial does, in whichever process. Whatever is wrong with it, it fails no trial.
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
"""Bytes that are kept of its beginning, and of its end."""

_SLACK = 2**20  # bytes beyond these until it is cut: to cut it for each line would take all the time
_LOOK = 0.5  # seconds between looks at its size
_UPLOAD = 10.0  # seconds between copies to a storage that cannot append
_LAST = 10.0  # seconds that the end of a trial waits for the last copy
_CUT = re.compile(rb"\n\[tuner: (\d+) bytes were cut here\]\n")


class OutputLog:
    """Takes what this process, and what it starts meanwhile, writes to its file descriptors 1 and 2."""

    def __init__(self, files: Any, path: str) -> None:
        """Nothing is written yet.

        Args:
            files: The file system of its storage, as pyarrow has it.
            path: Where it lies there. What is there already stays in front.
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
        except Exception:  # a disk that is full, a storage that is away: it trains without
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
        sys.stdout, sys.stderr = _forgiving(1), _forgiving(2)
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
        """The file that is written to, with what the storage has of it."""
        if self._is_local:
            file = Path(self._path)
            file.parent.mkdir(parents=True, exist_ok=True)
            return file
        file = self._leaving.enter_context(temporary.folder()) / FILE
        with contextlib.suppress(FileNotFoundError), self._files.open_input_stream(self._path) as stream:
            file.write_bytes(stream.read())
        return file

    def _keep(self) -> None:
        """Keep it short, and copy it to a storage that is elsewhere, until the trial is over."""
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
        """Cut its middle out. Who writes to it meanwhile appends, wherever its end is then."""
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
        whole = b"\n[tuner: %d bytes were cut here]\n" % self._cut + end
        while whole:
            whole = whole[os.write(self._file, whole) :]

    def _cut_before(self) -> tuple[int, int | None]:
        """Bytes that an earlier process has cut out, and how long the beginning is; None where it is not cut."""
        if os.fstat(self._file).st_size <= KEPT:
            return 0, None
        found = _CUT.search(os.pread(self._file, KEPT + 100, 0))
        return (int(found[1]), found.start()) if found else (0, None)

    def _store(self) -> None:
        """Copy it to where it belongs; one that is empty is none."""
        size, _ = state = self._state()
        if self._is_local:
            if not size and self._over.is_set():
                Path(self._path).unlink()
                Path(self._path).parent.rmdir()  # which fails where there is anything else
        elif state != self._stored:
            with self._files.open_output_stream(self._path) as stream:
                stream.write(os.pread(self._file, size, 0))
            self._stored = state

    def _state(self) -> tuple[int, int]:
        """Its size, and when it was written to last."""
        status = os.fstat(self._file)
        return status.st_size, status.st_mtime_ns

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._leaving.close()


class _Forgiving(FileIO):
    """A file descriptor whose disk may be full: what is printed is not worth a trial."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def _forgiving(number: int) -> TextIO:
    file = BufferedWriter(_Forgiving(number, "w", closefd=False))
    return TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _flush() -> None:
    """Have everybody write what they hold back, C's library, too."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    with contextlib.suppress(Exception):
        ctypes.CDLL(None).fflush(None)
