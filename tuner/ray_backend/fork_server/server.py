"""The fork server's process: it imports what workers need, and forks one whenever Ray starts a worker."""

import json
import os
import random
import runpy
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from tuner.process.startup import collection_postponed
from tuner.ray_backend.internals import internal


class Imports(NamedTuple):
    """The modules that workers need."""

    libraries: Sequence[str]
    """Those that do not import Ray."""
    of_ray: Sequence[str]
    """Those that do. Ray reads the environment as it is imported, so that it has to be that of the workers."""


TRIALS = Imports(
    (
        "tuner.train.loop",
        "torch._dynamo",  # which torch's optimizers import as they are made
        "sklearn.model_selection",  # which splits datasets
        *("google.protobuf.message", "jsonschema", "pandas", "pyarrow.dataset", "requests"),
    ),
    ("ray.tune", "tuner.ray_backend.worker.trainable"),
)
"""What workers of trials and Ray in them need."""

_READ_BY_RAY = ("RAY_", "TUNE_")
"""Beginnings of the variables that Ray reads as it is imported."""
_NOT_THERE = {"RAY_LD_PRELOAD_ON_WORKERS"}
"""The variables among them that Ray's node manager reads, not workers."""

_Request = Mapping[str, Any]
"""What `setup_worker.request` returns."""


def main(listener: socket.socket, imports: Imports) -> None:
    """Serve until the driver, which holds the other end of standard input, has ended. In a worker, be the worker.

    Args:
        listener: A listening Unix socket, on which `setup_worker.py` asks for workers.
        imports: The modules that workers need.
    """
    # Without collection, and what is there frozen: a collection in a worker would write to all objects, and so copy the
    # memory that workers share.
    with collection_postponed():
        for module in imports.libraries:
            import_module(module)
        if not (line := sys.stdin.readline()):
            return  # the driver has ended
        environment: dict[str, str] = json.loads(line)
        os.environ.clear()
        os.environ.update(environment)
        for module in imports.of_ray:
            import_module(module)
    wanted = _serve(listener, environment)
    if wanted is not None:
        _work(wanted)


def _serve(listener: socket.socket, environment: Mapping[str, str]) -> _Request | None:
    """Fork a worker for each request; return the request in the worker, and None when the driver has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for workers: Ray learns of their ends by their sockets
    driver = sys.stdin.fileno()
    ready = select.poll()
    ready.register(listener, select.POLLIN)
    ready.register(driver, select.POLLIN)  # which is told of the end, too
    while driver not in dict(ready.poll()):
        connection, _ = listener.accept()
        with connection:
            streams, wanted = _received(connection)
            if wanted is not None and not _fits(wanted, environment):
                wanted = None
            if wanted is not None and os.fork() == 0:
                listener.close()
                _take_over(streams, wanted)
                return wanted
            for stream in streams:
                os.close(stream)
            with suppress(OSError):  # whoever asked has gone meanwhile
                connection.sendall(b"1" if wanted else b"0")
    return None


def _fits(wanted: _Request, environment: Mapping[str, str]) -> bool:
    """Whether a worker of Ray's has the variables with which Ray was imported; other processes do not use Ray."""
    is_of_ray = any(each.startswith("--raylet-name=") for each in wanted["arguments"])
    return not is_of_ray or _for_ray(wanted["environment"] | wanted["variables"]) == _for_ray(environment)


def _for_ray(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that Ray reads as it is imported."""
    of_ray = {name: value for name, value in environment.items() if name.startswith(_READ_BY_RAY)}
    return {name: value for name, value in of_ray.items() if name not in _NOT_THERE}


def _received(connection: socket.socket) -> tuple[Sequence[int], _Request | None]:
    """Receive a worker's standard streams and a request; None if whoever asks has gone meanwhile."""
    connection.settimeout(10.0)
    streams: Sequence[int] = ()
    try:
        head, streams, _, _ = socket.recv_fds(connection, 8, 3)
        with connection.makefile("rb") as file:
            return streams, json.loads(file.read(int.from_bytes(head, "big")))
    except (OSError, ValueError):
        return streams, None


def _take_over(streams: Sequence[int], wanted: _Request) -> None:
    """Make this process what the one that asked for it was to be."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["folder"])
    os.setpgid(0, 0)  # Ray ends the processes of a worker's group with it
    os.setpriority(os.PRIO_PROCESS, 0, wanted["niceness"])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, wanted["blocked"])


def _work(wanted: _Request) -> None:
    """Be a worker, as if Python had been started with the arguments of the request."""
    import numpy as np

    if wanted["variables"]:
        internal("utils.update_envs")(wanted["variables"])
    # Each process that is started has seeds of its own; torch begins with the same in all.
    random.seed()
    np.random.seed()
    script = wanted["arguments"][0]
    sys.argv = list(wanted["arguments"])
    sys.path[:] = [str(Path(script).parent), *wanted["path"]]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), Imports(*json.loads(sys.argv[2])))
