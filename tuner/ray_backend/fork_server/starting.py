"""Starting a fork server beside a Ray that is started, and ending it."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tuner.ray_backend.fork_server import server, setup_worker
from tuner.ray_backend.internals import internal, replacing
from tuner.storage import temporary

_FIRST_JOB = "01000000"
"""The id of the first job of a Ray, which is that of the driver that starts it."""


class _Held:
    """Holds a fork server, or none, until `end`."""

    def __init__(self) -> None:
        self._ending = contextlib.ExitStack()
        self.process: subprocess.Popen[bytes] | None = None
        self.address = ""

    def begin(self, imports: server.Imports) -> None:
        """Start one."""
        self.process, self.address = self._ending.enter_context(_started(imports))

    def take(self, other: "_Held") -> None:
        """Hold the one that another holds, which has none then."""
        self._ending, self.process, self.address = other._ending.pop_all(), other.process, other.address
        other.end()

    def end(self) -> None:
        """End it."""
        self.process, self.address = None, ""
        self._ending.close()


_running, _ahead = _Held(), _Held()
"""The fork server of the Ray of this process, and the one that was started ahead and that no Ray has yet."""


def address() -> str:
    """The address of the fork server of this process, where `setup_worker.ask` finds it; empty if it has none."""
    return _running.address


@contextlib.contextmanager
def started_ahead() -> Iterator[None]:
    """Start the fork server of trials ahead of their Ray, which the body may start.

    Its imports take longer than anything else before the first trial: they begin while the experiment is checked. On a
    single core they would only hold up the checks, and what those say of mistakes.
    """
    if (os.cpu_count() or 1) > 1:
        with contextlib.suppress(OSError):  # without a temporary folder, of which the checks tell
            _ahead.begin(server.TRIALS)
    try:
        yield
    finally:
        end_ahead()


def end_ahead() -> None:
    """End the fork server that was started ahead, if no Ray has it."""
    _ahead.end()


@contextlib.contextmanager
def forked_workers(imports: server.Imports = server.TRIALS) -> Iterator[None]:
    """Start a fork server; a Ray that is started in the body has its workers from it.

    A process of its own imports what workers need while Ray starts, so that a worker costs a fork instead of seconds of
    imports, and shares their memory. It ends with this process, or when `end` is called.

    Args:
        imports: The modules that workers need.
    """
    end()
    try:
        if imports == server.TRIALS and _ahead.process is not None and _ahead.process.poll() is None:
            _running.take(_ahead)
        else:
            _running.begin(imports)
    except OSError:  # no folder whose path is short enough, or no further process: Ray starts workers itself
        yield
        return
    original = internal("Node.start_raylet")

    def start_raylet(self: Any, *arguments: Any, **options: Any) -> None:
        self._ray_params.setup_worker_path = setup_worker.__file__
        os.environ[setup_worker.ADDRESS] = _running.address  # for the raylet, which passes it to workers
        try:
            original(self, *arguments, **options)
        finally:
            del os.environ[setup_worker.ADDRESS]
        raylet = dict(self.live_processes())["raylet"].pid
        _tell(os.environ | {"RAY_RAYLET_PID": str(raylet), "RAY_JOB_ID": _FIRST_JOB})

    try:
        with replacing({"Node.start_raylet": start_raylet}):
            yield
    except BaseException:
        end()  # no Ray was started
        raise


def _tell(environment: Mapping[str, str]) -> None:
    """Tell the fork server the environment of the workers of a Ray, with which it imports Ray."""
    process = _running.process
    assert process is not None and process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has failed: Ray starts workers itself
        process.stdin.write(json.dumps(dict(environment)).encode("ascii") + b"\n")
        process.stdin.flush()


def end() -> None:
    """End the fork server of this process, if it has one; its workers live on until their Ray ends."""
    _running.end()


@contextlib.contextmanager
def _started(imports: server.Imports) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start a fork server, and end it after the body; its process, and the path of its socket."""
    with temporary.folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        address = str(folder / "workers")
        listener.bind(address)
        listener.listen(1024)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", server.__name__, str(listener.fileno()), json.dumps(imports)],
            stdin=subprocess.PIPE,  # its end tells the server that this process has ended
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            start_new_session=True,  # signals of a terminal do not reach it
            env=os.environ
            | {
                # It imports what this process would, and no module of the user's that is named as one of a library.
                "PYTHONPATH": os.pathsep.join(sys.path),
                # Asking for GPUs must not begin with the one context of CUDA that a fork cannot use.
                "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
            },
        )
        listener.close()
        try:
            yield process, address
        finally:
            process.kill()  # it may still import, and has nothing to end
            process.communicate()
