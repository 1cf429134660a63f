"""PostgreSQL, an MLflow server and Ray, started for real on free ports of the loopback and ended again."""

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

_PATIENCE = 300.0  # seconds that a server may take to come up


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody listens on a port of the loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's own programs; None where it is not installed."""
    found = shutil.which("initdb")
    there = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return there[-1] if there and (there[-1] / "postgres").exists() else None


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL of one's own, with an empty database. Yields its URI."""
    programs = postgres_programs()
    assert programs is not None, "PostgreSQL is not installed"
    # It refuses to run as root; Debian's package brings a user for it.
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
            server.send_signal(signal.SIGINT)  # at once: asked politely, it waits for everybody who is connected
            server.wait(_PATIENCE)


@contextlib.contextmanager
def mlflow_server(
    store: str, artifacts: Path, *options: str, port: int = 0, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """An MLflow server on a store, with artifacts by way of itself. Yields its URI.

    Args:
        store: URI of the database.
        artifacts: Folder of the artifacts.
        options: More options of ``mlflow server``.
        port: Where to listen; 0 for any free port.
        environment: More environment variables.
    """
    port = port or free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--artifacts-destination", str(artifacts), "--workers", "2", *options]
    with tempfile.NamedTemporaryFile("w+") as log:
        server = subprocess.Popen(
            command,
            cwd=artifacts.parent,  # where it keeps who may sign in
            env={name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
            | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # eight processes more, for what nobody asks it here
            | dict(environment or {}),
            stdout=log,
            stderr=log,
            start_new_session=True,  # its workers end with it
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
    """A Ray that somebody else has started, as an administrator would, with a token.

    Args:
        cpus: Cores that it has for trials.

    Yields:
        What a driver has in its environment to use it, ``RAY_ADDRESS`` among it.
    """
    port = free_port()
    # Its own folder and token: whatever else runs on this machine is left alone.
    folder = tempfile.mkdtemp(prefix="ray-")  # those of tests are too long for the sockets in it
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_TMPDIR": folder}
    head = subprocess.Popen(
        ["ray", "start", "--head", "--block", f"--port={port}", f"--num-cpus={cpus}", "--include-dashboard=false"],
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
            said = log.read_text()
            assert server.poll() is None, f"it ended: {said}"
            assert time.monotonic() < deadline, f"it does not come up: {said}"
            time.sleep(0.2)


@contextlib.contextmanager
def slow(uri: str, delay: float) -> Iterator[str]:
    """A way to a server on which every answer takes `delay` seconds more. Yields its URI."""
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

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - their names are given

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
