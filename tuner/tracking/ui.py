"""MLflow's UI: links to the page of a job, and the UI's server."""

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
from tuner.process.signals import on_signal, stop
from tuner.storage.uris import masked
from tuner.tracking.queries import RecordedJob, jobs
from tuner.tracking.store import VIEW, experiments

_SHARED = "mlflow.sharedViewState."
_POLL_INTERVAL = 0.2  # seconds between requests until the server answers
_MAX_LOG = 4000  # characters from the end of a log that are printed
_STOP_TIMEOUT = 10.0  # seconds that the server's processes have to end


def links(client: Any, uri: str, port: int) -> list[str]:
    """Return lines with the UI's URL, and with that of the last job's page if there is a job.

    Args:
        client: A client of the store.
        uri: The store's URI; a tracking server has its own UI.
        port: The port of the UI.

    Raises:
        UserError: MLflow's UI does not show such a store.
    """
    if uri.startswith("databricks"):
        raise UserError(Problem("Databricks shows its experiments itself", where=uri, hint="open its workspace"))
    base = masked(uri) if is_served(uri) else _address(port)
    last = next(jobs(client, experiments(client)), None)
    if last is None:
        return [f"MLflow     {base}", "           it has no job of tuner yet"]
    return [f"MLflow     {base}", f"last job   {last.experiment} {last.id}", f"           {page(client, last, base)}"]


def _address(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def is_served(uri: str) -> bool:
    """Return whether a store is a tracking server, which has its own UI."""
    return uri.startswith(("http:", "https:"))


def page(client: Any, job: RecordedJob, base: str) -> str:
    """Return the URL of the page of MLflow's UI with the trials of a job, best first.

    Args:
        client: A client of the store.
        job: The job.
        base: The UI's URL.
    """
    experiment = job.run.info.experiment_id
    view = _view(client.get_experiment(experiment).tags, job.run.info.run_id)
    address = f"{base.rstrip('/')}/#/experiments/{experiment}/runs?workflowType=machine_learning"
    return f"{address}&{VIEW}={view}" if view else address


def _view(tags: dict[str, str], parent: str) -> str:
    """Return the key of the experiment's shared view of a job's trials; empty if there is none."""
    for name, text in tags.items():
        kind, _, packed = text.partition(";")
        if name.startswith(_SHARED) and kind == "deflate" and parent in _state(packed).get("searchFilter", ""):
            return name.removeprefix(_SHARED)
    return ""


def _state(packed: str) -> dict[str, Any]:
    try:
        state = json.loads(zlib.decompress(base64.b64decode(packed)))
    except (ValueError, zlib.error):  # not written by tuner
        return {}
    return state if isinstance(state, dict) else {}


def check_free(port: int) -> None:
    """Check that a port of this host is free.

    Raises:
        UserError: It is not.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was closed just now counts as free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            hint = f"--port {_free_port()} is free; or is MLflow's UI running already?"
            raise UserError(Problem(f"port {port} cannot be used: {error.strerror}", "--port", hint=hint)) from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(uri: str, port: int, when_ready: Callable[[], None], *, verbose: bool = False) -> int:
    """Run MLflow's UI until it ends, or until a signal: Ctrl-C, SIGTERM, a terminal that closes.

    Args:
        uri: The store's URI.
        port: The port to listen on.
        when_ready: Called as soon as the UI answers.
        verbose: Whether to show the server's log; else its end is printed if the server fails.

    Returns:
        The server's exit status; 0 if a signal ended it.
    """
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    # In the environment: all users of the host can read a command line, and with it a password.
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": uri}
    with contextlib.ExitStack() as leaving:
        leaving.enter_context(on_signal(stop))
        log = None if verbose else leaving.enter_context(tempfile.TemporaryFile())
        server = leaving.enter_context(
            subprocess.Popen(command, env=environment, start_new_session=True, stdout=log, stderr=log)
        )
        try:
            while server.poll() is None and not _answers(port):
                time.sleep(_POLL_INTERVAL)
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
    """Return whether the UI answers requests, which it does some time after it listens."""
    direct = build_opener(ProxyHandler({}))
    with contextlib.suppress(OSError), direct.open(f"{_address(port)}/health", timeout=5):
        return True
    return False


def _end_of(log: IO[bytes]) -> str:
    log.seek(max(0, log.seek(0, SEEK_END) - _MAX_LOG))
    return log.read().decode(errors="replace").strip()


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End the server and all processes of its group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(_STOP_TIMEOUT)
            return
