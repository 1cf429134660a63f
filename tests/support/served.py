"""A service in a thread of the tests, whose models are replicas in this process, and a registry of models."""

import asyncio
import contextlib
import http.client
import io
import json
import shutil
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from encoded_files import noise

from tuner.deploy.serve.answering.predictor import Model
from tuner.deploy.serve.answering.replica import Replica
from tuner.deploy.serve.deployed import Here
from tuner.deploy.serve.http.application import application
from tuner.deploy.serve.http.server import Address, Server, listening
from tuner.deploy.serve.limits import Limits
from tuner.deploy.serve.measures import Measures
from tuner.deploy.serve.rollout.models import Models, Version
from tuner.train.checkpoint import Save
from tuner.train.trial_config import TrialConfig

Result = TypeVar("Result")


class Near(Here):
    """A replica in this process.

    Args:
        folder: The checkpoint.
        limits: What is accepted of a client.
        model: What is known of it.
    """

    def __init__(self, folder: Path, limits: Limits, model: Model | None = None) -> None:
        super().__init__(Replica(folder, model or Model("model"), limits, 1))


class Registry:
    """A store with versions of a registered model; each has weights of its own."""

    def __init__(self, folder: Path, empty: Path) -> None:
        from mlflow import MlflowClient

        self.file, self.folder = folder / "mlflow.db", folder
        shutil.copy(empty, self.file)
        self.uri = f"sqlite:///{self.file}"
        self.client = MlflowClient(self.uri)
        self.experiment = self.client.create_experiment("digits", str(folder / "artifacts"))
        self.client.create_registered_model("digits")
        self.folders: dict[str, Path] = {}

    def version(
        self,
        *,
        scale: float = 1.0,
        example: str = "",
        edit: Callable[[dict[str, Any]], None] = lambda weights: None,
        **sections: Any,
    ) -> str:
        """Register a version; return its number.

        Args:
            scale: The weights are multiplied by it.
            example: The content of the file with its example; empty for none.
            edit: Changes the weights.
            sections: Sections of the trial.
        """
        number = str(len(self.folders) + 1)
        model = {"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8}
        config = TrialConfig.model_validate(
            {"data": {"kind": "digits"}, "model": model, "seed": 0, "precision": "float32"} | sections
        )
        torch.manual_seed(int(number))
        folder = self.folders[number] = self.folder / f"version-{number}"
        folder.mkdir()
        weights = {
            name: each * scale if each.is_floating_point() else each
            for name, each in config.build_model().state_dict().items()
        }
        edit(weights)
        Save(config, weights, {}, {"epoch": 1})(folder)
        tags = {"tuner.role": "trial", "tuner.trial": number, "tuner.status": "completed"}
        run = self.client.create_run(self.experiment, tags=tags).info.run_id
        self.client.log_artifacts(run, str(folder), "checkpoint")
        if example:
            self.client.log_text(run, example, "model/input_example.json")
        self.client.create_model_version("digits", f"runs:/{run}/model", run)
        return number

    def name(self, alias: str, number: str) -> None:
        self.client.set_registered_model_alias("digits", alias, number)

    def forget(self, alias: str) -> None:
        self.client.delete_registered_model_alias("digits", alias)


@dataclass
class Reply:
    """What a client receives."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Service:
    """A running service.

    Args:
        port: Its port.
        server: The server.
        models: Its models.
        loop: Its event loop, in another thread.
    """

    port: int
    server: Server
    models: Models
    loop: asyncio.AbstractEventLoop

    def ask(
        self,
        path: str = "/v1/models/digits/predict",
        body: Any = None,
        method: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            connection.request(method or ("GET" if body is None else "POST"), path, body, dict(headers or {}))
            reply = connection.getresponse()
            return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())

    def ask_json(self, value: Any, path: str = "/v1/models/digits/predict") -> Reply:
        body = value if isinstance(value, bytes | str) else json.dumps(value)
        return self.ask(path, body, headers={"Content-Type": "application/json"})


@contextlib.contextmanager
def serving(
    served: Mapping[str, Any], limits: Limits | None = None, token: str | None = None, grace: float = 60
) -> Iterator[Service]:
    """Serve models by name; those that are None are still being loaded."""
    started, made = threading.Event(), []

    async def serve() -> None:
        models = Models(list(served))
        for name, each in served.items():
            if each is not None:
                models.replace(name, "champion", Version("1", f"models:/{name}/1", each))
        accepted = limits or Limits()
        server = Server(application(models, accepted, Measures(), token), Address(), grace, accepted.seconds)
        made.append(Service(opened.getsockname()[1], server, models, asyncio.get_running_loop()))
        started.set()
        await server.serve([opened])

    with contextlib.closing(listening(Address(port=0))) as opened:
        opened.listen()
        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        assert started.wait(120)
        try:
            yield made[0]
        finally:
            made[0].server.stop()
            thread.join(120)
            assert not thread.is_alive()


def within(work: Coroutine[Any, Any, Result]) -> Result:
    """Run what is asynchronous in a thread: the browser of other tests keeps an event loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result(120)


def png(number: int = 0, size: tuple[int, int] = (9, 8)) -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    noise(number, size).save(buffer, "png")
    return buffer.getvalue()


def npy(array: np.ndarray[Any, Any]) -> bytes:
    """An array in NumPy's format."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def form(*parts: tuple[str, str | None, bytes]) -> tuple[bytes, dict[str, str]]:
    """A form: of each part the field, the file's name, and the content; and its headers."""
    lines = []
    for field, name, content in parts:
        file = f'; filename="{name}"' if name is not None else ""
        lines.append(f'--limit\r\nContent-Disposition: form-data; name="{field}"{file}\r\n\r\n'.encode() + content)
    return b"\r\n".join([*lines, b"--limit--\r\n"]), {"Content-Type": "multipart/form-data; boundary=limit"}
