"""``tuner serve`` as somebody types it: Ray Serve's replicas, an HTTP server, and its end."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
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
        found = re.search(r"serving .* at http://127\.0\.0\.1:(\d+)", self.said)
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


def test_a_model_that_cannot_be_served(tmp_path: Path) -> None:
    checkpoints.write(tmp_path / "one", data={"kind": "digits"}, model=MODEL)
    (tmp_path / "one" / "signature.json").write_text("{")
    with command(tmp_path, "./one") as running:
        assert running.process.wait(600) == 2
        running.end()
        assert "error: " in running.said and "signature.json" in running.said and "Traceback" not in running.said
