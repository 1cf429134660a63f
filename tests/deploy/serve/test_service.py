"""``tuner serve`` as somebody types it: Ray Serve's replicas, an HTTP server, and its end."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import checkpoints
import psutil
import pytest
from conftest import eventually, processes_below
from served import Registry, png

import tuner
from tuner.ray_backend.cluster.resources import ClusterResources

pytestmark = pytest.mark.server

TOKEN = "a-token-of-a-test"
MODEL: dict[str, Any] = {"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8}


class Command:
    """A running ``tuner serve``; its lines so far."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tuner", "serve", *arguments, "--port", "0"],
            cwd=folder,
            env={name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def port(self) -> int:
        """Its port, once all models answer."""
        assert eventually(lambda: "serving " in self.said or self.process.poll() is not None, 600), self.said
        found = re.search(r"serving .* at https?://127\.0\.0\.1:(\d+)", self.said)
        assert found, self.said
        return int(found[1])

    def end(self) -> int:
        """End it as a supervisor does; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(300)
        self._reader.join(60)
        return status


@contextlib.contextmanager
def command(folder: Path, *arguments: str) -> Iterator[Command]:
    running = Command(folder, *arguments)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait(60)


def certificate_in(folder: Path) -> Path:
    """Make a certificate for this machine, and its key beside it; return the file of the certificate."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*made.split(), *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate


class Partial:
    """A request over TLS of which a part is sent, then the rest."""

    def __init__(self, port: int, context: ssl.SSLContext, body: bytes) -> None:
        self._rest = body[1:]
        self._connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=300, context=context)
        self._connection.putrequest("POST", "/v1/models/one/predict")
        self._connection.putheader("Authorization", f"Bearer {TOKEN}")
        self._connection.putheader("Content-Length", str(len(body)))
        self._connection.endheaders(body[:1])

    def send(self, piece: bytes) -> None:
        self._connection.send(piece)

    def status(self) -> int:
        with contextlib.closing(self._connection):
            return self._connection.getresponse().status

    def finish(self) -> int:
        self.send(self._rest)
        return self.status()


def ask(port: int, path: str, body: bytes | None = None) -> tuple[int, Any]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
        connection.request("GET" if body is None else "POST", path, body)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())


def replicas_of(running: Command) -> list[psutil.Process]:
    return processes_below(running.process.pid, "ServeReplica")


def test_two_models_side_by_side(tmp_path: Path) -> None:
    for number, name in enumerate(("one", "other")):
        checkpoints.write(tmp_path / name, data={"kind": "digits"}, model=MODEL | {"hidden": 8 + number})
    files = [png(number) for number in range(16)]
    wanted = {name: [each.label for each in tuner.load(tmp_path / name).predict(files)] for name in ("one", "other")}
    with command(tmp_path, "./one", "b=./other", "--replicas", "2") as running:
        port = running.port()
        assert [each["name"] for each in ask(port, "/v1/models")[1]["models"]] == ["one", "b"]
        for name, labels in (("one", wanted["one"]), ("b", wanted["other"])):
            with ThreadPoolExecutor(8) as pool:
                replies = list(pool.map(lambda file: ask(port, f"/v1/models/{name}/predict", file), files))  # noqa: B023
            assert [status for status, _ in replies] == [200] * len(files)
            assert [found["predictions"][0]["label"] for _, found in replies] == labels
        assert ask(port, "/v1/models/one/predict", b"no image")[0] == 422
        started = psutil.Process(running.process.pid).children(recursive=True)
        assert running.end() == 0, running.said
        assert not [each for each in started if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
        assert "Traceback" not in running.said


def test_as_many_replicas_as_the_load_needs(tmp_path: Path) -> None:
    checkpoints.write(tmp_path / "one", data={"kind": "digits"}, model=MODEL)
    ended = threading.Event()
    with command(tmp_path, "./one", "--replicas", "1..2") as running:
        port = running.port()
        assert len(replicas_of(running)) == 1

        def ask_on() -> None:
            while not ended.is_set():
                assert ask(port, "/v1/models/one/predict", png())[0] == 200

        with ThreadPoolExecutor(8) as pool:
            clients = [pool.submit(ask_on) for _ in range(8)]
            try:
                assert eventually(lambda: len(replicas_of(running)) == 2, 180), running.said
            finally:
                ended.set()
            for each in clients:
                each.result(60)
        assert running.end() == 0, running.said


def test_a_replica_that_dies_is_replaced(tmp_path: Path) -> None:
    checkpoints.write(tmp_path / "one", data={"kind": "digits"}, model=MODEL)
    with command(tmp_path, "./one") as running:
        port = running.port()
        [replica] = replicas_of(running)
        assert replica.nice() == psutil.Process(running.process.pid).nice(), "clients wait for it"
        replica.kill()
        assert eventually(lambda: ask(port, "/v1/models/one/predict", png())[0] == 200, 300), running.said
        assert running.end() == 0


def test_a_new_champion_takes_over_under_load(tmp_path: Path, empty_store: Path) -> None:
    registry = Registry(tmp_path, empty_store)
    registry.name("champion", registry.version())
    registry.version()
    wanted = {number: tuner.load(folder).predict(png(5))[0].probability for number, folder in registry.folders.items()}
    ended, seen = threading.Event(), set()
    with command(tmp_path, "digits", "--uri", registry.uri) as running:
        port = running.port()

        def ask_on() -> None:
            while not ended.is_set():
                status, found = ask(port, "/v1/models/digits/predict", png(5))
                assert status == 200, found
                assert found["predictions"][0]["probability"] == pytest.approx(wanted[found["version"]], abs=1e-4)
                seen.add(found["version"])

        with ThreadPoolExecutor(2) as pool:
            clients = [pool.submit(ask_on) for _ in range(2)]
            try:
                assert eventually(lambda: "1" in seen)
                registry.name("champion", "2")
                assert eventually(lambda: "2" in seen or any(each.done() for each in clients), 300), running.said
                assert eventually(lambda: len(replicas_of(running)) == 1, 120), "the old one has ended"
            finally:
                ended.set()
            for each in clients:
                each.result(60)
        assert seen == {"1", "2"} and "digits: models:/digits/2 answers now as champion" in running.said
        assert running.end() == 0


def test_on_a_ray_that_was_there_before(started_ray: ClusterResources, tmp_path: Path) -> None:
    import ray
    from ray import serve

    checkpoints.write(tmp_path / "one", data={"kind": "digits"}, model=MODEL)
    with command(tmp_path, "./one", "--address", ray.get_runtime_context().gcs_address) as running:
        assert ask(running.port(), "/v1/models/one/predict", png())[0] == 200
        assert [each.startswith("tuner-") for each in serve.status().applications] == [True]
        assert running.end() == 0, running.said
    assert not serve.status().applications, "nothing of it is left"
    serve.shutdown()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl, to make a certificate")
def test_strangers_over_tls_and_the_end(tmp_path: Path) -> None:
    checkpoints.write(tmp_path / "one", data={"kind": "digits"}, model=MODEL)
    certificate = certificate_in(tmp_path)
    (tmp_path / "token").write_text(TOKEN)
    context = ssl.create_default_context(cafile=str(certificate))

    def reply(body: bytes | None = None, token: str = TOKEN) -> tuple[int, Any]:
        with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", port, timeout=300, context=context)) as opened:
            path = "/v1/models" if body is None else "/v1/models/one/predict"
            opened.request("POST" if body else "GET", path, body, {"Authorization": f"Bearer {token}"})
            received = opened.getresponse()
            return received.status, received.headers

    given = ["--tls-cert", "cert.pem", "--tls-key", "key.pem", "--token-file", "token"]
    with command(tmp_path, "./one", *given, "--timeout", "10", "--max-queue", "1") as running:
        port = running.port()
        assert reply(png())[0] == 200 and reply(png(), "another-token-of-a-test")[0] == 401
        with pytest.raises(ssl.SSLCertVerificationError):  # who does not know the certificate does not trust it
            http.client.HTTPSConnection("127.0.0.1", port, context=ssl.create_default_context()).connect()
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            ask(port, "/v1/models")
        slow = Partial(port, context, png())
        assert eventually(lambda: reply(png())[0] == 429)
        status, headers = reply(png())
        assert status == 429 and int(headers["Retry-After"]) > 0 and reply()[0] == 200
        for _ in range(13):  # a byte a second
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                slow.send(b"x")
            time.sleep(1)
        assert slow.status() == 408
        gone = Partial(port, context, png())
        gone._connection.close()
        assert eventually(lambda: reply(png())[0] == 200), "its place is free again"
        last = Partial(port, context, png())
        assert eventually(lambda: reply(png())[0] == 429), "it is accepted"
        running.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: not is_listening(port))
        assert last.finish() == 200
        assert running.end() == 0 and "Traceback" not in running.said, running.said


def is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10):
        return True
    return False


def test_a_model_that_cannot_be_served(tmp_path: Path) -> None:
    checkpoints.write(tmp_path / "one", data={"kind": "digits"}, model=MODEL)
    (tmp_path / "one" / "signature.json").write_text("{")
    with command(tmp_path, "./one") as running:
        assert running.process.wait(600) == 2
        running.end()
        assert "error: " in running.said and "signature.json" in running.said and "Traceback" not in running.said
