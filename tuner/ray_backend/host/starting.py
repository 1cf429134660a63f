"""The way of a proxy to the host of its GPU, which the first proxy starts."""

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import time
from multiprocessing.connection import Client, Connection
from pathlib import Path

from tuner.ray_backend.fork_server import setup_worker
from tuner.ray_backend.host import main
from tuner.ray_backend.internals import internal
from tuner.ray_backend.worker.session import Lost

_FOLDER = "hosts"
_GPUS = "CUDA_VISIBLE_DEVICES"
_LISTENS = 60.0
"""Seconds that a host has until it listens."""


def connected(job: str, fork_server: str = "") -> Connection:
    """Connect to the host of a job for this worker's GPU on this node; start one if there is none.

    Args:
        job: What names the job.
        fork_server: The address of the fork server of this node; empty if it has none.

    Raises:
        Lost: The host ended as it started.
    """
    session = Path(internal("worker")._global_node.get_session_dir_path())
    folder = session / _FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    name = hashlib.sha256(f"{job} {os.environ.get(_GPUS, '')}".encode()).hexdigest()[:8]
    address = folder / name
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the others wait until it listens
        with contextlib.suppress(OSError):
            return Client(str(address), "AF_UNIX")
        address.unlink(missing_ok=True)
        logs = session / "logs" / f"host-{name}.log"
        _start([main.__file__, str(address)], logs, fork_server)
        until = time.monotonic() + _LISTENS
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                return Client(str(address), "AF_UNIX")
            time.sleep(0.02)
    raise Lost(f"the process that trains it beside others does not start: {logs} on its node says why")


_DETACHED = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
"""Starts a process that is no child of the caller: Ray ends those with their worker."""


def _start(script: list[str], logs: Path, fork_server: str) -> None:
    """Start a host, which writes to a log: a fork of the fork server if there is one."""
    with logs.open("ab") as log, Path(os.devnull).open("rb") as nothing:
        wanted = setup_worker.request(script)
        streams = (nothing.fileno(), log.fileno(), log.fileno())
        if fork_server and wanted is not None and setup_worker.ask(fork_server, wanted, streams):
            return
        subprocess.run(
            [sys.executable, "-c", _DETACHED, sys.executable, *script],
            stdin=nothing,
            stdout=log,
            stderr=log,
            check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
