"""The service as an application of Ray Serve's: ``serve deploy`` and KubeRay build it by the import path of `build`.

Each replica has all models and the HTTP application in one process, and follows the registry by itself. Ray Serve's
proxies spread requests over the replicas, whose number its autoscaling sets.
"""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tuner.deploy.serve.answering.asked import Answered, Asked, Description
from tuner.deploy.serve.answering.batching import Batcher
from tuner.deploy.serve.answering.predictor import Model
from tuner.deploy.serve.answering.replica import Replica
from tuner.deploy.serve.http.token import token_for
from tuner.deploy.serve.limits import MEGABYTE, MOST_PIXELS, Limits
from tuner.deploy.serve.log import log_on_standard_error
from tuner.deploy.serve.rollout.naming import wanted
from tuner.deploy.serve.wiring import Wiring
from tuner.ray_backend.ingress import deployment
from tuner.storage.uris import absolute, default_uri
from tuner.tracking.checkpoints import pinned

_EVERYWHERE = "0.0.0.0"
"""Where Ray Serve's proxies listen, so that clients need a token."""
_MORE = 64
"""Requests beyond the queue that a replica is given at once: to be told that it is full, and to say that it lives."""
_SIDE_BY_SIDE = 2
"""Batches whose images are decoded and computed at once: one is decoded while another is computed."""


class Arguments(BaseModel):
    """What ``args`` of the configuration says: the options of ``tuner serve`` by their names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: list[str] = Field(min_length=1)
    """MODEL or NAME=MODEL of each."""
    canary: float = Field(0.0, ge=0, le=1)
    """The share of the requests that NAME@candidate answers."""
    token_file: Path | None = None
    """The file with the token of clients; None for that of TUNER_SERVE_TOKEN."""
    max_megabytes: float = Field(Limits.request_bytes / MEGABYTE, ge=0.001)
    """Most megabytes of a request."""
    max_pixels: int = Field(Limits.pixels, ge=1, le=MOST_PIXELS)
    """Most pixels of an image."""
    max_queue: int = Field(Limits.queue, ge=1)
    """Most requests that wait at a replica."""
    timeout: float = Field(Limits.seconds, ge=0.1)
    """Most seconds for a request to arrive, and to be answered."""
    trust: list[str] = []
    """The user's code that may be called to build models."""
    uri: str | None = None
    """MLflow's tracking URI; None for MLFLOW_TRACKING_URI, else MLflow's default."""

    @property
    def limits(self) -> Limits:
        """What is accepted of clients."""
        return Limits.of(self.max_megabytes, self.max_pixels, self.max_queue, self.timeout)


class Here:
    """A model that answers in this process.

    Args:
        replica: The model.
    """

    def __init__(self, replica: Replica) -> None:
        self.description: Description = replica.describe()
        self._batches: Batcher[Asked, Answered] = Batcher(
            replica.answer, lambda each: each.bytes, MEGABYTE, at_once=_SIDE_BY_SIDE
        )

    async def answer(self, asked: Asked) -> Answered:
        """Answer a request."""
        return await self._batches(asked)


class InThisProcess:
    """Runs models in this process.

    Args:
        limits: What is accepted of clients.
        threads: Threads that each model computes with.
        has_gpu: Whether they may use a GPU.
    """

    def __init__(self, limits: Limits, threads: int, has_gpu: bool) -> None:
        self._limits, self._threads, self._has_gpu = limits, threads, has_gpu

    def start(self, name: str, folder: Path, model: Model) -> Here:
        """Load a model, and check it."""
        return Here(Replica(folder, model, self._limits, self._threads, has_gpu=self._has_gpu))

    def stop(self, served: Here) -> None:
        """Nothing is left of a model that nobody refers to."""


def build(arguments: Arguments) -> Any:
    """Build the application from the ``args`` of a configuration of Ray Serve.

    Raises:
        UserError: Two models have the same name.
    """
    wanted(arguments.models)
    return deployment(partial(_make, arguments), "service", arguments.max_queue + _MORE, grace=arguments.limits.grace)


async def _make(arguments: Arguments, threads: int, has_gpu: bool) -> Any:
    """Load the models in a replica, follow the registry from then on, and make the HTTP application.

    Raises:
        UserError: There is no token, or a model cannot be served.
    """
    log_on_standard_error()
    models, uri = wanted(arguments.models), absolute(arguments.uri or default_uri())
    token = token_for(_EVERYWHERE, arguments.token_file)
    backend = InThisProcess(arguments.limits, threads, has_gpu)
    wiring = Wiring(models, backend, arguments.limits, token, share=arguments.canary, trust=arguments.trust, uri=uri)
    await wiring.load({each.name: await asyncio.to_thread(pinned, each.model, uri) for each in models})
    wiring.app.state.following = asyncio.create_task(wiring.follow())  # the loop itself keeps no task alive
    return wiring.app
