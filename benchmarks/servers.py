"""Context managers that run PostgreSQL, an MLflow server or Ray on free ports of the loopback interface."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import psutil

_PATIENCE = 300.0  # seconds that a server may take to start
_UNUSED = ["--include-dashboard=false", "--include-log-monitor=false"]  # no driver asks for the output of workers


def free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def answers(port: int) -> bool:
    """Return whether a process listens on a port of the loopback interface."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def postgres_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; None if it is not installed."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders and (folders[-1] / "postgres").exists() else None


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Start a PostgreSQL server with an empty database, and yield the database's URI."""
    programs = postgres_programs()
    assert programs is not None, "PostgreSQL is not installed"
    # PostgreSQL does not run as root; Debian's package creates a user for it.
    user = "postgres" if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        folder, port = Path(name), free_port()
        if user:
            shutil.chown(folder, user)

        def call(*command: str) -> None:
            subprocess.run(
                [str(programs / command[0]), *command[1:]], user=user, cwd=folder, check=True, capture_output=True
            )

        call("initdb", "-D", str(folder / "data"), "-U", "tuner", "--auth=trust", "--no-sync", "-E", "UTF8")
        command = [str(programs / "postgres"), "-D", str(folder / "data"), "-k", str(folder), "-h", "127.0.0.1"]
        with (folder / "log.txt").open("w") as log:
            server = subprocess.Popen(
                [*command, "-p", str(port), "-c", "fsync=off"],
                user=user,
                cwd=folder,
                stdout=log,
                stderr=log,
            )
        try:
            _wait(server, lambda: socket.create_connection(("127.0.0.1", port), timeout=1).close(), folder / "log.txt")
            call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "tuner", "mlflow")
            yield f"postgresql://tuner:secret@127.0.0.1:{port}/mlflow"
        finally:
            server.send_signal(signal.SIGINT)  # fast shutdown: after SIGTERM it would wait for its clients
            server.wait(_PATIENCE)


@contextlib.contextmanager
def mlflow_server(
    store: str, artifacts: Path, *options: str, port: int = 0, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Start an MLflow server for a store, which also serves the artifacts, and yield its URI.

    Args:
        store: URI of the database.
        artifacts: Folder of the artifacts.
        options: More options of ``mlflow server``.
        port: The port to listen on; 0 for any free port.
        environment: More environment variables.
    """
    port = port or free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--artifacts-destination", str(artifacts), "--workers", "2", *options]
    with tempfile.NamedTemporaryFile("w+") as log:
        server = subprocess.Popen(
            command,
            cwd=artifacts.parent,  # where it keeps its database of users
            env={name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
            | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # saves eight processes that are not needed here
            | dict(environment or {}),
            stdout=log,
            stderr=log,
            start_new_session=True,  # so that its workers end with it
        )
        try:
            _wait(server, lambda: urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close(), Path(log.name))
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


@contextlib.contextmanager
def ray_cluster(cpus: int) -> Iterator[dict[str, str]]:
    """Start a Ray cluster of one node with token authentication, as an administrator would.

    Args:
        cpus: The number of CPUs of the node.

    Yields:
        The environment variables that a driver needs to connect to it, such as ``RAY_ADDRESS``.
    """
    port = free_port()
    # A separate folder and token, so that other Ray clusters on this computer are not affected.
    folder = tempfile.mkdtemp(prefix="ray-")  # a test's folder has too long a path for Ray's sockets
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_TMPDIR": folder}
    head = subprocess.Popen(
        ["ray", "start", "--head", "--block", f"--port={port}", f"--num-cpus={cpus}", *_UNUSED],
        env=os.environ | own,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _PATIENCE
        while not answers(port):
            if time.monotonic() > deadline or head.poll() is not None:
                raise TimeoutError("Ray does not come up")
            time.sleep(0.2)
        yield own | {"RAY_ADDRESS": f"127.0.0.1:{port}"}
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]:
                child.kill()
        head.wait()
        shutil.rmtree(folder)


def _wait(server: "subprocess.Popen[bytes]", ask: Callable[[], None], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            ask()
            return
        except OSError:
            output = log.read_text()
            assert server.poll() is None, f"it ended: {output}"
            assert time.monotonic() < deadline, f"it does not come up: {output}"
            time.sleep(0.2)


@contextlib.contextmanager
def slow(uri: str, delay: float) -> Iterator[str]:
    """Start a proxy of a server that delays each response by `delay` seconds, and yield its URI."""
    port = int(uri.rpartition(":")[2])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            time.sleep(delay)
            connection = HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                text = answer.read()
            finally:
                connection.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - http.server defines the names

        def log_message(self, format: str, *arguments: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
