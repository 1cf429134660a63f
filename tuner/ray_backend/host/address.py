"""Where the host of a GPU listens, whom it listens to, and where it logs."""

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_GPUS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


@dataclass(frozen=True)
class Address:
    """The address of a host.

    Args:
        socket: The path of its socket, which is no longer than those of Ray itself.
        log: The file that it logs to.
    """

    socket: Path
    log: Path


def address_of(job: str, node: str, session: Path) -> Address:
    """The address of a job's host of the GPU that this process sees.

    Args:
        job: What names the job, on its Ray.
        node: Ray's id of the node: several of one machine share a session, such as containers, each with GPUs from 0.
        session: The folder of Ray's session on the node. Ray lets everybody write to it.

    Raises:
        OSError: There is no folder for it.
        PermissionError: Somebody else has made or opened the folder: what listens there may be theirs.
    """
    folder = session / f"host-{os.getuid():x}"
    folder.mkdir(mode=0o700, exist_ok=True)
    made = folder.lstat()
    if not stat.S_ISDIR(made.st_mode) or made.st_uid != os.getuid() or made.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a folder of this user alone")
    gpus = [os.environ.get(name, "") for name in _GPUS]
    name = hashlib.sha256(" ".join([job, node, *gpus]).encode()).hexdigest()[:6]
    return Address(folder / name, session / "logs" / f"host-{name}.log")


@contextmanager
def locked(socket: Path, *, waits: bool = True) -> Iterator[bool]:
    """Hold the lock of a host in the body, within which proxies connect to it and start it; yields whether it is held.

    Args:
        socket: The path of its socket.
        waits: Whether to wait for whoever holds it.
    """
    with socket.with_name(f"{socket.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
