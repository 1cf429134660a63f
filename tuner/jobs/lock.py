"""The lock on a job's folder, which one driver at a time holds."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil

from tuner.errors import Problem, UserError
from tuner.storage.file_lock import stand_in, try_lock
from tuner.storage.filesystem import files_at
from tuner.storage.uris import masked

_WRITER_TIMEOUT = 60.0  # seconds that the writer of a killed driver, which inherits the lock, has to finish


@contextlib.contextmanager
def alone_in(folder: str) -> Iterator[int]:
    """Lock a job's folder: two drivers of one job would train its trials twice, and record them twice.

    Args:
        folder: The job's folder. One in an object store is locked against the other processes of this node alone.

    Yields:
        The descriptor that holds the lock, also in processes that inherit it.

    Raises:
        UserError: Another process holds the lock.
    """
    if folder.startswith("file://"):
        _, folder = files_at(folder)
    is_local = "://" not in folder
    if is_local:
        Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder, ".lock") if is_local else stand_in("job", folder.partition("?")[0])
    with _locked(path, masked(folder)) as lock:
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield lock.fileno()
        finally:
            if is_local:
                _remove_if_empty(Path(folder))
            else:
                path.unlink(missing_ok=True)


def _locked(path: Path, folder: str) -> IO[str]:
    """Open and lock a file; wait for the writer of a killed driver.

    Raises:
        UserError: Another process holds the lock.
    """
    deadline = time.monotonic() + _WRITER_TIMEOUT
    while True:
        lock = path.open("a+")
        if try_lock(lock):
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(lock.fileno())):
                    return lock
            lock.close()  # whoever held the lock has deleted the file meanwhile
            continue
        lock.seek(0)
        driver = lock.read().strip()
        lock.close()
        if not driver or psutil.pid_exists(int(driver)) or time.monotonic() > deadline:
            hint = "wait until it has ended, or end it with Ctrl-C"
            raise UserError(Problem("the job is still running", where=folder, hint=hint))
        time.sleep(0.2)  # its driver was killed, but the writer still writes the record


def _remove_if_empty(folder: Path) -> None:
    """Remove a job's folder that contains the lock alone: the job was refused, or interrupted at once."""
    with contextlib.suppress(OSError):
        if [path.name for path in folder.iterdir()] == [".lock"]:
            (folder / ".lock").unlink()
            folder.rmdir()
            folder.parent.rmdir()  # raises if the experiment has other jobs
