"""The lock on a job's folder, which one driver at a time holds."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tuner.errors import Problem, UserError
from tuner.storage.file_lock import try_lock
from tuner.storage.filesystem import files_at

_WRITER_TIMEOUT = 60.0  # seconds that the writer of a killed driver, which inherits the lock, has to finish


@contextlib.contextmanager
def alone_in(folder: str) -> Iterator[int | None]:
    """Lock a job's folder: two drivers of one job would train its trials twice.

    Args:
        folder: The job's folder. One in an object store is not locked.

    Yields:
        The descriptor that holds the lock, also in processes that inherit it; None in an object store.

    Raises:
        UserError: Another process holds the lock.
    """
    if folder.startswith("file://"):
        _, folder = files_at(folder)
    if "://" in folder:
        yield None
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    with Path(folder, ".lock").open("a+") as lock:
        deadline = time.monotonic() + _WRITER_TIMEOUT
        while not try_lock(lock):
            lock.seek(0)
            driver = lock.read().strip()
            if not driver or psutil.pid_exists(int(driver)) or time.monotonic() > deadline:
                hint = "wait until it has ended, or end it with Ctrl-C"
                raise UserError(Problem("the job is still running", where=folder, hint=hint))
            time.sleep(0.2)  # its driver was killed, but the writer still writes the record
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield lock.fileno()
        finally:
            _remove_if_empty(Path(folder))


def _remove_if_empty(folder: Path) -> None:
    """Remove a job's folder that contains the lock alone: the job was refused, or interrupted at once."""
    with contextlib.suppress(OSError):
        if [path.name for path in folder.iterdir()] == [".lock"]:
            (folder / ".lock").unlink()
            folder.rmdir()
            folder.parent.rmdir()  # raises if the experiment has other jobs
