"""Replicas of anything that answers, run by Ray Serve, and how they are asked.

What a replica computes is the caller's: this module knows nothing of models and of HTTP. Ray Serve's own HTTP proxy is
not started: a request would pass two processes before it reaches a replica, and its limits are not those of a service
that strangers reach.
"""

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tuner.error_text import summary_of, traceback_of
from tuner.errors import Problem, UserError
from tuner.formatting import counted
from tuner.storage import temporary

_QUIET = {"log_level": "ERROR", "enable_access_log": False}
_FORKED = {"env_vars": {"TUNER_REPLICA": "1"}}
"""What makes Ray ask the fork server for a worker, which saves three seconds; nobody reads the variable."""
_MANY = 100_000
"""Requests that a replica is given at once: the service has its own limit, and a replica forms batches of them."""
_CHECKED = 2.0
"""Seconds between two checks of a replica's health; one that has ended is started again."""
_STARTED = 600.0
"""Most seconds until replicas answer: a cluster may have no room for them, or have to add a node first."""
_POLLED = 0.2
"""Seconds between two looks at whether they do."""
_SCALED = {"upscale_delay_s": 5.0, "downscale_delay_s": 120.0, "metrics_interval_s": 2.0, "look_back_period_s": 10.0}
"""Seconds of load that count. Ray's defaults, 30 and 600, are for replicas that take minutes to start."""


class Work(Protocol):
    """What a replica does."""

    def describe(self) -> Any:
        """What it says of itself."""

    async def answer(self, asked: Sequence[Any]) -> Sequence[Any]:
        """Answer requests, in their order; an exception stands for the answer of one that fails."""


class Unavailable(Exception):
    """No replica can be asked: one has ended, and its successor is not there yet."""


@dataclass(frozen=True)
class Share:
    """What each replica gets.

    Args:
        least: The fewest replicas.
        most: The most replicas; between the two there are as many as the load needs.
        cpus: Cores that Ray reserves for each; 0 for a Ray of our own, where nobody else asks for them.
        gpus: GPUs, or the share of one, that each gets.
    """

    least: int = 1
    most: int = 1
    cpus: float = 0
    gpus: float = 0


class Replicas:
    """Replicas that answer the same.

    Args:
        name: The name of their application in Ray Serve.
        handle: Ray Serve's handle.
        files: Ray's reference to the files that they were made of. A replica that takes the place of one that has ended
            reads them again.
    """

    def __init__(self, name: str, handle: Any, files: Any) -> None:
        self.name = name
        # By value, which is a call through gRPC, with Ray's token: half the time of one by Ray's references to objects.
        self._handle, self._files = handle.options(_by_reference=False), files

    async def answer(self, asked: Sequence[Any]) -> Sequence[Any]:
        """Have one of them answer requests, in their order; an exception stands for the answer of one that fails.

        Raises:
            Unavailable: It has ended.
            Exception: What its work has raised.
        """
        from grpc import RpcError
        from ray.exceptions import RayError, RayTaskError
        from ray.serve.exceptions import RayServeException

        try:
            answers: Sequence[Any] = await self._handle.answer.remote(asked)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except (RayError, RayServeException, RpcError) as error:
            raise Unavailable(summary_of(error)) from error
        return answers


class Serving:
    """Runs replicas on the Ray that this process is connected to."""

    def __init__(self) -> None:
        from ray import serve

        self._prefix = f"tuner-{secrets.token_hex(4)}"
        self._count = 0
        self._running: set[str] = set()
        self._lock = threading.Lock()
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(proxy_location="Disabled", logging_config=_QUIET)

    def start(self, name: str, make: Callable[[Path], Work], folder: Path, share: Share) -> tuple[Replicas, Any]:
        """Start replicas, and wait until they answer. It blocks, and may be called from several threads.

        Args:
            name: What they are for, for Ray's dashboard.
            make: Makes what a replica does, in its process, from a folder with the files, which is deleted then.
            folder: The folder with the files. Ray brings them to the nodes.
            share: How many there are, and what each gets.

        Returns:
            The replicas, and what they say of themselves.

        Raises:
            UserError: `make` has raised it, or there is no room for them; nothing is left of them.
            RuntimeError: It has raised something else, or their processes end.
        """
        import ray
        from ray import serve

        files = ray.put({str(each.relative_to(folder)): each.read_bytes() for each in _files_in(folder)})
        deadline = time.monotonic() + _STARTED
        with self._lock:
            self._count += 1
            application = f"{self._prefix}-{self._count}-{name}"
            deployment = serve.deployment(
                _Replica,
                name=name,
                max_ongoing_requests=_MANY,
                health_check_period_s=_CHECKED,
                ray_actor_options={"num_cpus": share.cpus, "num_gpus": share.gpus, "runtime_env": _FORKED},
                logging_config=_QUIET,
                **_scaled(share),
            )
            target = serve.RunTarget(deployment.bind(make, [files]), application, route_prefix=None)
            self._running.add(application)
            [handle] = serve.run_many([target], wait_for_applications_running=False)
        try:
            described = self._described(application, handle, share, deadline)
        except BaseException:
            self._delete(application)
            raise
        return Replicas(application, handle, files), described

    def _described(self, application: str, handle: Any, share: Share, deadline: float) -> Any:
        """Wait until all replicas answer; return what they say of themselves.

        Raises:
            Exception: As of `start`.
        """
        asked = handle.describe.remote()
        while time.monotonic() < deadline:
            are_all_there = self._is_running(application) or share.least == 1
            with contextlib.suppress(TimeoutError):
                fault, described = asked.result(timeout_s=_POLLED)
                if fault is not None:
                    raise fault
                if are_all_there:
                    return described
                time.sleep(_POLLED)
        raise _no_room(share)

    def _is_running(self, application: str) -> bool:
        """Whether all replicas of an application run.

        Raises:
            RuntimeError: They cannot be started.
        """
        from ray import serve

        with self._lock:
            state = serve.status().applications[application]
        if state.status == "DEPLOY_FAILED":
            raise RuntimeError(state.message)
        return bool(state.status == "RUNNING")

    def stop(self, replicas: Replicas) -> None:
        """End replicas, which have answered all that they were asked."""
        self._delete(replicas.name)

    def end(self) -> None:
        """End all replicas. A Ray that was there before would go on to run them."""
        for application in sorted(self._running):
            self._delete(application)

    def _delete(self, application: str) -> None:
        from ray import serve

        serve.delete(application)
        self._running.discard(application)


def _scaled(share: Share) -> dict[str, Any]:
    """How many replicas there are, as Ray Serve has it."""
    if share.least == share.most:
        return {"num_replicas": share.least}
    scaling = {"min_replicas": share.least, "max_replicas": share.most}
    return {"autoscaling_config": scaling | _SCALED}


def _no_room(share: Share) -> UserError:
    asked = f"{share.cpus:g} CPU cores and {share.gpus:g} GPUs"
    message = f"{counted(share.least, 'replica')} with {asked} did not start within {_STARTED:g} seconds"
    return UserError(Problem(message, hint="ray status says what the nodes have; fewer --replicas, or smaller --gpus"))


def _files_in(folder: Path) -> list[Path]:
    """The files in a folder, at any depth."""
    return [each for each in sorted(folder.rglob("*")) if each.is_file()]


def _write(reference: Any, folder: Path) -> None:
    """Write files to a folder."""
    import ray

    for name, content in ray.get(reference).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


class _Replica:
    """A replica in its process.

    Its constructor never fails: Ray Serve would try again several times, and tell no more than a traceback.
    """

    def __init__(self, make: Callable[[Path], Work], files: Sequence[Any]) -> None:
        self._fault: Exception | None = None
        self._work: Work | None = None
        try:
            with temporary.folder() as folder:
                _write(files[0], folder)
                self._work = make(folder)
        except UserError as error:
            self._fault = error
        except Exception as error:
            self._fault = _portable(error)

    def describe(self) -> tuple[Exception | None, Any]:
        return self._fault, self._work.describe() if self._work is not None else None

    async def answer(self, asked: Sequence[Any]) -> Sequence[Any]:
        if self._work is None:
            assert self._fault is not None
            raise self._fault
        return [_portable(each) for each in await self._work.answer(asked)]


def _portable(answer: Any) -> Any:
    """An answer, or the exception instead of one, in a form that the driver can unpickle."""
    if isinstance(answer, Exception) and not isinstance(answer, UserError):
        return RuntimeError(traceback_of(answer))
    return answer
