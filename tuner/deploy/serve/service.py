"""The service as a whole: what ``tuner serve`` starts, in which order, and how it ends."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tuner.deploy.serve.answering.asked import Answered, Asked, Description
from tuner.deploy.serve.answering.batching import Batcher
from tuner.deploy.serve.answering.predictor import Model
from tuner.deploy.serve.answering.replica import Replica
from tuner.deploy.serve.http import server
from tuner.deploy.serve.http.token import token_for
from tuner.deploy.serve.limits import MEGABYTE, Limits
from tuner.deploy.serve.rollout.models import Lost
from tuner.deploy.serve.rollout.naming import Wanted, wanted
from tuner.deploy.serve.rollout.versions import Backend
from tuner.deploy.serve.scaling import Room, scale_of
from tuner.deploy.serve.wiring import Wiring
from tuner.errors import Problem, UserError
from tuner.ray_backend.cluster import connection
from tuner.ray_backend.cluster.address import address_of
from tuner.ray_backend.fork_server.server import Imports
from tuner.ray_backend.serving import Replicas, Serving, Share, Unavailable
from tuner.storage.uris import absolute, default_uri
from tuner.tracking.checkpoints import checkpoint_of, pinned
from tuner.train.checkpoint import DESCRIPTION, read_description

_log = logging.getLogger(__name__)
_IMPORTS = Imports(
    ("tuner.deploy.serve.answering.replica", "fastapi", "uvicorn", "grpc", "aiohttp", "jsonschema", "requests"),
    ("ray.serve",),
)
"""What replicas and Ray Serve in them need."""
_CALLS = 2
"""Calls of a replica that are under way: one is computed while the next one is on its way."""
_CALL_BYTES = MEGABYTE
"""Most bytes of the images of requests that are called with together: of larger ones the calls are a small part."""


@dataclass(frozen=True)
class Settings:
    """What the user wants to be served, and how.

    Args:
        models: MODEL or NAME=MODEL of each.
        address: Where the service listens.
        limits: What is accepted of clients.
        replicas: Replicas of each model: a number, or a range such as ``1..8``.
        gpus: The share of a GPU of each replica; None for an equal share of those there are.
        share: The share of the requests that candidates answer.
        seconds: Seconds between two looks at the registry.
        token_file: The file with the token; None for that of the environment.
        cluster: The address of a Ray; None to start one.
        trust: The user's code that may be called to build models.
        code: The folder of that code.
        uri: MLflow's tracking URI; None for MLFLOW_TRACKING_URI, else MLflow's default.
    """

    models: Sequence[str]
    address: server.Address = field(default_factory=server.Address)
    limits: Limits = field(default_factory=Limits)
    replicas: str = "1"
    gpus: float | None = None
    share: float = 0.0
    seconds: float = 10.0
    token_file: Path | None = None
    cluster: str | None = None
    trust: Sequence[str] = ()
    code: Path | None = None
    uri: str | None = None


class OnRay:
    """Runs models as replicas of Ray Serve.

    Args:
        limits: What is accepted of clients.
        share: How many replicas of each model there are, and what each gets.
        threads: Threads that each computes with.
    """

    def __init__(self, limits: Limits, share: Share, threads: int) -> None:
        self._serving = Serving()
        self._limits, self._share, self._threads = limits, share, threads

    def start(self, name: str, folder: Path, model: Model) -> "OfRay":
        has_gpu = self._share.gpus > 0
        make = partial(Replica, model=model, limits=self._limits, threads=self._threads, has_gpu=has_gpu)
        return OfRay(*self._serving.start(name, make, folder, self._share), self._share.most)

    def stop(self, served: "OfRay") -> None:
        self._serving.stop(served.replicas)

    def end(self) -> None:
        """End all models."""
        self._serving.end()


class OfRay:
    """A model that runs as replicas of Ray Serve.

    A call of a replica costs Ray a millisecond or more of both processes: requests that come while calls are under way
    go along with the next one.

    Args:
        replicas: The replicas.
        description: What the model says of itself.
        count: How many replicas there are at the most; where Ray Serve sees two calls for each, it starts another one.
    """

    def __init__(self, replicas: Replicas, description: Description, count: int) -> None:
        self.replicas, self.description = replicas, description
        self._calls: Batcher[Asked, Answered] = Batcher(
            self._answered, lambda each: each.bytes, _CALL_BYTES, at_once=_CALLS * count
        )

    async def answer(self, asked: Asked) -> Answered:
        return await self._calls(asked)

    async def _answered(self, asked: Sequence[Asked]) -> Sequence[Answered | Exception]:
        try:
            return await self.replicas.answer(asked)
        except Unavailable as error:
            raise Lost(str(error)) from error


def serve(settings: Settings, when_ready: Callable[[str], None]) -> None:
    """Serve models until a signal ends the service: what was accepted is answered first.

    Args:
        settings: What is served, and how.
        when_ready: Called with the URL of the service as soon as all models answer.

    Raises:
        UserError: The user has made a mistake, and nothing is left running.
    """
    models, scale = wanted(settings.models), scale_of(settings.replicas)
    server.check_tls(settings.address)
    token = token_for(settings.address.host, settings.token_file)
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(contextlib.closing(server.listening(settings.address)))
        addresses = _addresses(models, settings)
        cluster = address_of(settings.cluster)
        capacity = connection.connect(cluster, niceness=0, imports=_IMPORTS)  # clients wait for the replicas
        stack.callback(connection.disconnect)
        room = Room(capacity, len(models), 2 if settings.share else 1, is_own=cluster is None)
        share = room.share(scale, settings.gpus)
        if any(each.followed for each in models) and not room.has_room_for_another(share):
            _log.warning("there is no room for a version that takes over: a new champion will be refused")
        backend = OnRay(settings.limits, share, room.threads(scale))
        if cluster is not None:  # a Ray of our own ends with all that it runs
            stack.callback(backend.end)
        asyncio.run(_serve(settings, models, addresses, backend, token, opened, when_ready))


def _addresses(models: Sequence[Wanted], settings: Settings) -> dict[str, str]:
    """The MODEL that leads to the version with which each model begins, and to no other one, by its name.

    Raises:
        UserError: Some do not exist, or their checkpoints do not say what they are.
    """
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for each in models:
        try:
            address = found[each.name] = pinned(each.model, settings.uri)
            with checkpoint_of(address, settings.uri, DESCRIPTION) as folder:
                read_description(folder, settings.trust)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return found


async def _serve(
    settings: Settings,
    models: Sequence[Wanted],
    addresses: dict[str, str],
    backend: Backend,
    token: str | None,
    opened: socket.socket,
    when_ready: Callable[[str], None],
) -> None:
    """Load the models while the service says that it lives; then answer, and follow the registry."""
    wiring = Wiring(
        models,
        backend,
        settings.limits,
        token,
        share=settings.share,
        trust=settings.trust,
        code=settings.code,
        uri=absolute(settings.uri or default_uri()),
        seconds=settings.seconds,
    )
    running = server.Server(wiring.app, settings.address, settings.limits.grace, settings.limits.seconds)
    url = settings.address.url(opened.getsockname()[1])
    with server.stopped_by_signals(running):
        listening = asyncio.create_task(running.serve([opened]))
        working = asyncio.create_task(_work(wiring, addresses, partial(when_ready, url)))
        await asyncio.wait({listening, working}, return_when=asyncio.FIRST_COMPLETED)
        if working.done() and not working.cancelled() and working.exception() is not None:
            running.stop()
        await listening
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    if not working.cancelled() and (error := working.exception()) is not None:
        raise error


async def _work(wiring: Wiring, addresses: dict[str, str], when_ready: Callable[[], None]) -> None:
    """Load all models, and follow the registry for ever."""
    await wiring.load(addresses)
    when_ready()
    await wiring.follow()
