"""Replicas of anything that answers, run by Ray Serve, and how they are asked.

What a replica computes is the caller's: this module knows nothing of models and of HTTP. Ray Serve's own HTTP proxy is
not started: a request would pass two processes before it reaches a replica, and its limits are not those of a service
that strangers reach.
"""

import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tuner.error_text import summary_of, traceback_of
from tuner.errors import UserError
from tuner.storage import temporary

_QUIET = {"log_level": "ERROR", "enable_access_log": False}
_MANY = 100_000
"""Requests that a replica is given at once: the service has its own limit, and a replica forms batches of them."""
_CHECKED = 2.0
"""Seconds between two checks of a replica's health; one that has ended is started again."""


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
        replicas: How many replicas there are.
        cpus: Cores that Ray reserves for each; 0 for a Ray of our own, where nobody else asks for them.
        gpus: GPUs, or the share of one, that each gets.
    """

    replicas: int = 1
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
        self._handle, self._files = handle, files

    async def answer(self, asked: Sequence[Any]) -> Sequence[Any]:
        """Have one of them answer requests, in their order; an exception stands for the answer of one that fails.

        Raises:
            Unavailable: It has ended.
            Exception: What its work has raised.
        """
        from ray.exceptions import RayError, RayTaskError
        from ray.serve.exceptions import RayServeException

        try:
            answers: Sequence[Any] = await self._handle.answer.remote(asked)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except (RayError, RayServeException) as error:
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
            UserError: `make` has raised it; nothing is left of them.
            RuntimeError: It has raised something else.
        """
        import ray
        from ray import serve

        files = ray.put({str(each.relative_to(folder)): each.read_bytes() for each in _files_in(folder)})
        with self._lock:  # Ray Serve's functions may not be called by several threads at once
            self._count += 1
            application = f"{self._prefix}-{self._count}-{name}"
            deployment = serve.deployment(
                _Replica,
                name=name,
                num_replicas=share.replicas,
                max_ongoing_requests=_MANY,
                health_check_period_s=_CHECKED,
                ray_actor_options={"num_cpus": share.cpus, "num_gpus": share.gpus},
                logging_config=_QUIET,
            )
            handle = serve.run(deployment.bind(make, [files]), name=application, route_prefix=None)
            self._running.add(application)
        fault, described = handle.describe.remote().result()
        if fault is not None:
            self._delete(application)
            raise fault
        return Replicas(application, handle, files), described

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
