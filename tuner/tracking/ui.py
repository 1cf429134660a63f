"""MLflow's UI on a store: the pages of a job, and the server that shows them."""

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from io import SEEK_END
from typing import IO, Any
from urllib.request import ProxyHandler, build_opener

from tuner.errors import Problem, UserError
from tuner.signals import on_signal, stop
from tuner.storage.uris import masked
from tuner.tracking.queries import RecordedJob, jobs
from tuner.tracking.store import VIEW, experiments

_SHARED = "mlflow.sharedViewState."
_LOOK = 0.2  # seconds between two looks whether it answers
_MOST_OF_A_LOG = 4000  # characters of its end
_GRACE = 10.0  # seconds that the server's processes have to end


def links(client: Any, uri: str, port: int) -> list[str]:
    """What to open, as lines: the page of the last job, where there is one.

    Args:
        client: Of the store.
        uri: The store; a server shows its pages itself.
        port: Where the UI is going to listen.

    Raises:
        UserError: MLflow's UI does not show such a store.
    """
    if uri.startswith("databricks"):
        raise UserError(Problem("Databricks shows its experiments itself", where=uri, hint="open its workspace"))
    base = masked(uri) if is_served(uri) else _address(port)
    last = next(jobs(client, experiments(client)), None)
    if last is None:
        return [f"MLflow     {base}", "           it has no job of tuner's yet"]
    return [f"MLflow     {base}", f"last job   {last.experiment} {last.id}", f"           {page(client, last, base)}"]


def _address(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def is_served(uri: str) -> bool:
    """Whether a store is a server, which shows itself."""
    return uri.startswith(("http:", "https:"))


def page(client: Any, job: RecordedJob, base: str) -> str:
    """Where MLflow's UI shows the trials of a job, best first.

    Args:
        client: Of the store.
        job: The job.
        base: Where the UI is.
    """
    experiment = job.run.info.experiment_id
    view = _view(client.get_experiment(experiment).tags, job.run.info.run_id)
    address = f"{base.rstrip('/')}/#/experiments/{experiment}/runs?workflowType=machine_learning"
    return f"{address}&{VIEW}={view}" if view else address


def _view(tags: dict[str, str], parent: str) -> str:
    """The key of the view of an experiment that shows a job's trials; empty where there is none."""
    for name, text in tags.items():
        kind, _, packed = text.partition(";")
        if name.startswith(_SHARED) and kind == "deflate" and parent in _state(packed).get("searchFilter", ""):
            return name.removeprefix(_SHARED)
    return ""


def _state(packed: str) -> dict[str, Any]:
    try:
        state = json.loads(zlib.decompress(base64.b64decode(packed)))
    except (ValueError, zlib.error):  # somebody else's
        return {}
    return state if isinstance(state, dict) else {}


def check_free(port: int) -> None:
    """Make sure that a port of this machine can be listened on.

    Raises:
        UserError: It cannot.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one whose last user has just gone is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            hint = f"--port {_free_port()} is free; or is MLflow's UI running already?"
            raise UserError(Problem(f"port {port} cannot be had: {error.strerror}", "--port", hint=hint)) from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(uri: str, port: int, when_ready: Callable[[], None], *, verbose: bool = False) -> int:
    """Run MLflow's UI until it ends, or until we are told to: Ctrl-C, SIGTERM, a terminal that is closed.

    Args:
        uri: The store.
        port: Where it listens.
        when_ready: Called as soon as it answers.
        verbose: Whether its log is shown; else the end of it is where the UI fails.

    Returns:
        Its exit status; 0 where we ended it.
    """
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    # By way of the environment: a command line, and with it a password, can be seen by everybody on the machine.
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": uri}
    with contextlib.ExitStack() as leaving:
        leaving.enter_context(on_signal(stop))
        log = None if verbose else leaving.enter_context(tempfile.TemporaryFile())
        server = leaving.enter_context(
            subprocess.Popen(command, env=environment, start_new_session=True, stdout=log, stderr=log)
        )
        try:
            while server.poll() is None and not _answers(port):
                time.sleep(_LOOK)
            if server.poll() is None:
                when_ready()
            status = server.wait()
            if status and log is not None:
                print(f"MLflow's UI has ended with status {status}:\n{_end_of(log)}", file=sys.stderr)
            return status
        except KeyboardInterrupt:
            return 0
        finally:
            _end(server)


def _answers(port: int) -> bool:
    """Whether the UI takes requests: it listens some time before it does."""
    direct = build_opener(ProxyHandler({}))
    with contextlib.suppress(OSError), direct.open(f"{_address(port)}/health", timeout=5):
        return True
    return False


def _end_of(log: IO[bytes]) -> str:
    log.seek(max(0, log.seek(0, SEEK_END) - _MOST_OF_A_LOG))
    return log.read().decode(errors="replace").strip()


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End the server with all of its processes: it is the leader of their group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(_GRACE)
            return
