"""The way of a proxy to the host of its GPU, which the first proxy starts."""

import contextlib
import os
import select
import subprocess
import sys
from multiprocessing.connection import Client, Connection
from pathlib import Path

import ray

from tuner.error_text import summary_of
from tuner.ray_backend.fork_server import setup_worker
from tuner.ray_backend.host import main
from tuner.ray_backend.host.address import Address, address_of, locked
from tuner.ray_backend.host.link import Link
from tuner.ray_backend.host.pulse import Pulse
from tuner.ray_backend.internals import internal
from tuner.ray_backend.worker.session import Lost

_LISTENS = 60.0
"""Seconds that a host has until it listens."""


def connected(job: str, fork_server: str = "") -> Link:
    """Connect to the host of a job for this worker's GPU on this node; start one if there is none.

    Args:
        job: What names the job.
        fork_server: The address of the fork server of this node; empty if it has none.

    Raises:
        Lost: There is no host, and none can be started.
    """
    session = Path(internal("worker")._global_node.get_session_dir_path())
    on_ray = ray.get_runtime_context()
    try:
        address = address_of(f"{job} {on_ray.get_job_id()}", on_ray.get_node_id(), session)
        with locked(address.socket):  # the others wait until it listens
            connection = _connection(address) or _of_new(address, fork_server)
    except OSError as error:  # such as a full disk
        raise Lost(f"the process that trains it beside others cannot be started: {summary_of(error)}") from None
    if connection is None:
        raise Lost(f"the process that trains it beside others does not start: {address.log} on its node says why")
    return Link(connection, address.log, Pulse(connection, address.socket))


def _connection(address: Address) -> Connection | None:
    with contextlib.suppress(OSError):
        return Client(str(address.socket), "AF_UNIX")
    return None


def _of_new(address: Address, fork_server: str) -> Connection | None:
    """The connection to a host that is started; None if it has ended, or does not listen in time."""
    address.socket.unlink(missing_ok=True)
    listens, its = os.pipe()
    try:
        try:
            _start([main.__file__, str(address.socket)], its, address.log, fork_server)
        finally:
            os.close(its)
        ready = select.poll()
        ready.register(listens, select.POLLIN)
        ready.poll(1000 * _LISTENS)  # until nobody has the other end: it listens, or has ended
    finally:
        os.close(listens)
    return _connection(address)


_DETACHED = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
"""Starts a process that is no child of the caller: Ray ends those with their worker."""


def _start(script: list[str], stdin: int, log: Path, fork_server: str) -> None:
    """Start a host, which writes to a log: a fork of the fork server if there is one."""
    with log.open("ab") as output:
        wanted = setup_worker.request(script)
        streams = (stdin, output.fileno(), output.fileno())
        if fork_server and wanted is not None and setup_worker.ask(fork_server, wanted, streams):
            return
        subprocess.run(
            [sys.executable, "-P", "-c", _DETACHED, sys.executable, "-P", *script],
            stdin=stdin,
            stdout=output,
            stderr=output,
            check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
