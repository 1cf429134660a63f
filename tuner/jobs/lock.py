"""A job's folder belongs to one driver at a time."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tuner.errors import Problem, UserError
from tuner.storage.file_lock import try_lock
from tuner.storage.filesystem import files_at

_LAST_WORDS = 60.0  # seconds that the record of a driver that was killed may take


@contextlib.contextmanager
def alone_in(folder: str) -> Iterator[int | None]:
    """Keep a job's folder to oneself: two drivers of one job would train its trials twice.

    Args:
        folder: The job's folder. Of one in an object store everybody has to see to that themselves.

    Yields:
        The descriptor that holds the folder, also for processes that inherit it; None where nothing does.

    Raises:
        UserError: Another process has it.
    """
    if folder.startswith("file://"):
        _, folder = files_at(folder)
    if "://" in folder:
        yield None
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    with Path(folder, ".lock").open("a+") as lock:
        deadline = time.monotonic() + _LAST_WORDS
        while not try_lock(lock):
            lock.seek(0)
            driver = lock.read().strip()
            if not driver or psutil.pid_exists(int(driver)) or time.monotonic() > deadline:
                hint = "wait until it has ended, or end it with Ctrl-C"
                raise UserError(Problem("the job is still running", where=folder, hint=hint))
            time.sleep(0.2)  # its driver was killed, and what that had said is still being written
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield lock.fileno()
        finally:
            _leave_nothing(Path(folder))


def _leave_nothing(folder: Path) -> None:
    """Remove a job's folder in which there is nothing but the lock: the job was refused, or broken off at once."""
    with contextlib.suppress(OSError):
        if [path.name for path in folder.iterdir()] == [".lock"]:
            (folder / ".lock").unlink()
            folder.rmdir()
            folder.parent.rmdir()  # unless other jobs of the experiment are there
