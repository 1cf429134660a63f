"""Services of a model that are compared: ours, MLflow's scoring server, LitServe, and one of constant answers."""

import base64
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil

from benchmarks import machine
from benchmarks.servers import answers, free_port

_PATIENCE = 180.0
_JSON = "application/json"


@dataclass(frozen=True)
class Service:
    """A way to serve a model.

    Args:
        name: Its name in tables.
        command: The command that serves a checkpoint at a port.
        path: Where predictions are asked for.
        body: The body of a request for the prediction of an image file, and its type.
        prediction: The prediction in an answer.
    """

    name: str
    command: Callable[[Path, int], Sequence[str]]
    path: str
    body: Callable[[bytes], tuple[bytes, str]]
    prediction: Callable[[Any], Any]


def _text(image: bytes) -> str:
    return base64.b64encode(image).decode()


def _tuner(checkpoint: Path, port: int, *options: str) -> Sequence[str]:
    return [sys.executable, "-m", "tuner", "serve", f"model={checkpoint}", "--port", str(port), *options]


def registered(name: str, port: int, uri: str) -> Sequence[str]:
    """The command that serves the champion of a registered model, under its name."""
    return [sys.executable, "-m", "tuner", "serve", name, "--port", str(port), "--uri", uri]


def _mlflow(checkpoint: Path, port: int) -> Sequence[str]:
    folder = checkpoint.with_name("mlflow")
    if not folder.exists():
        save = f"from benchmarks.plain_model import save; from pathlib import Path; save(Path({str(checkpoint)!r}), "
        command = [sys.executable, "-c", f"{save}Path({str(folder)!r}))"]
        subprocess.run(command, env=machine.environment(), check=True, capture_output=True)
    serve = ["-m", "mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local", "-p", str(port)]
    return [sys.executable, *serve]


def _module(name: str, *arguments: object) -> Sequence[str]:
    return [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]


def ours(*options: str) -> Service:
    """``tuner serve``, with options."""
    return Service(
        "`tuner serve`",
        lambda checkpoint, port: _tuner(checkpoint, port, *options),
        "/v1/models/model/predict",
        lambda image: (image, "image/png"),
        lambda found: found["predictions"][0],
    )


OURS_IN_JSON = Service(
    "`tuner serve`, JSON",
    _tuner,
    "/v1/models/model/predict",
    lambda image: (json.dumps({"images": [_text(image)]}).encode(), _JSON),
    lambda found: found["predictions"][0],
)
MLFLOW = Service(
    "`mlflow models serve`",
    _mlflow,
    "/invocations",
    lambda image: (
        json.dumps({"dataframe_split": {"columns": ["image"], "data": [[_text(image)]]}}).encode(),
        _JSON,
    ),
    lambda found: found["predictions"][0],
)
LITSERVE = Service(
    "LitServe",
    lambda checkpoint, port: _module("litserve_service", checkpoint, port),
    "/predict",
    lambda image: (json.dumps({"image": _text(image)}).encode(), _JSON),
    lambda found: found,
)
CONSTANT = Service(
    "a constant answer",
    lambda checkpoint, port: _module("constant_service", port),
    "/",
    lambda image: (image, "image/png"),
    lambda found: None,
)


@dataclass(frozen=True)
class Running:
    """A service that answers.

    Args:
        service: The service.
        port: Its port.
        process: Its first process.
    """

    service: Service
    port: int
    process: psutil.Process

    @property
    def url(self) -> str:
        """Where predictions are asked for."""
        return f"http://127.0.0.1:{self.port}{self.service.path}"

    def predict(self, image: bytes) -> Any:
        """Ask for the prediction of an image file."""
        body, kind = self.service.body(image)
        with urlopen(Request(self.url, body, {"Content-Type": kind}), timeout=_PATIENCE) as reply:
            return self.service.prediction(json.loads(reply.read()))


@contextlib.contextmanager
def running(service: Service, checkpoint: Path, image: bytes) -> Iterator[Running]:
    """Start a service, wait until it predicts, and end it with all that it has started."""
    port = free_port()
    command = service.command(checkpoint, port)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=checkpoint.parent, env=machine.environment(), stdout=log, stderr=log, start_new_session=True
        )
        found = Running(service, port, psutil.Process(process.pid))
        try:
            deadline = time.monotonic() + _PATIENCE
            while not (answers(port) and _predicts(found, image)):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{' '.join(command)} does not come up:\n{log.read().decode()[-3000:]}")
                time.sleep(0.2)
            yield found
        finally:
            _end(found.process)


def _predicts(found: Running, image: bytes) -> bool:
    try:
        found.predict(image)
    except OSError:  # not yet, or refused as it is still loading
        return False
    return True


def _end(process: psutil.Process) -> None:
    """End a process as a supervisor does, and kill what is left of it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        all_of_it = [process, *process.children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(all_of_it, 30)
        for each in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(alive, 10)
