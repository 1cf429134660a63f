"""Trials in the process of their job, one after another: for what a test asks of a job, and nothing of Ray.

Ray Tune's control loop, its schedulers and its callbacks are as they always are, and so is what a trial runs: its
actors alone are not processes of a Ray, but objects here. A Ray takes seconds to start, and so does each worker.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import cloudpickle
from ray.air.execution._internal import RayActorManager
from ray.exceptions import RayActorError, RayTaskError

from tuner.ray_backend.cluster import connection
from tuner.ray_backend.cluster.resources import ClusterResources, NodeResources
from tuner.ray_backend.worker import trainable
from tuner.tracking.user_mlflow import UserMlflow


class _Room:
    """Resources for one trial at a time: what it reports with belongs to its process. A `ResourceManager` of Ray's."""

    def __init__(self) -> None:
        self._is_free = True

    def has_resources_ready(self, request: Any) -> bool:
        return self._is_free

    def acquire_resources(self, request: Any) -> Any:
        self._is_free = False
        return SimpleNamespace(resource_request=request, annotate_remote_entities=_made_here)

    def free_resources(self, acquired_resource: Any) -> None:
        self._is_free = True

    def request_resources(self, resource_request: Any) -> None:
        """There are some, or there will be."""

    def cancel_resource_request(self, resource_request: Any) -> None:
        """Nothing was set aside."""

    def get_resource_futures(self) -> list[Any]:
        return []

    def update_state(self) -> None:
        """Nothing changes by itself."""

    def clear(self) -> None:
        self._is_free = True


def _sent(value: Any) -> Any:
    """What comes of it where it goes to another process."""
    return cloudpickle.loads(cloudpickle.dumps(value))


class _Actor:
    """An object, whose methods are called one after another on a thread of its own."""

    def __init__(self, create: Callable[[], Any]) -> None:
        self._thread = ThreadPoolExecutor(1, "actor")
        self._created = self._thread.submit(create)

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(
            remote=lambda *arguments, **named: self._thread.submit(self._call, name, arguments, named)
        )

    def _call(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        made = self._created.result()
        if name == "__ray_ready__":
            return True
        if name == "__ray_terminate__":
            self._thread.shutdown(wait=False)
            return None
        try:
            return _sent(getattr(made, name)(*_sent(arguments), **_sent(named)))
        except Exception as error:  # as a Ray's worker sends it
            raise RayTaskError(name, "", error) from error
        except SystemExit as left:  # of a thread that has been told to leave: a worker would end
            raise RayActorError(error_msg="the worker has left") from left


def _made_here(actors: list[Any]) -> list[Any]:
    """Classes of actors of which objects are made here, whatever they ask for."""

    def remote(kind: Any, **named: Any) -> _Actor:
        return _Actor(partial(kind.__ray_metadata__.modified_class, **_sent(named)))

    return [SimpleNamespace(remote=partial(remote, kind)) for kind in actors]


class _Actors(RayActorManager):  # type: ignore[misc]
    """Ray Tune's actors, as objects in this process."""

    def __init__(self, resource_manager: Any) -> None:
        super().__init__(resource_manager=_Room())
        self._is_first = True

    def next(self, timeout: float | None = None) -> bool:
        if self._is_first:  # no worker is there at once
            self._is_first = False
            return False
        killed = self._try_kill_actor()
        self._try_start_actors()
        if killed:
            return True
        states = self._actor_state_events.get_futures()
        ready: set[Future[Any]] = wait([*states, *self._actor_task_events.get_futures()], timeout, FIRST_COMPLETED).done
        if not ready:
            return False
        future = next(iter(ready))
        (self._actor_state_events if future in states else self._actor_task_events).resolve_future(future)
        self._try_start_actors()
        return True


def _result(get: Callable[..., Any], what: Any, **named: Any) -> Any:
    """What comes of a call: of an actor here, or of a Ray that there is beside them."""
    return what.result() if isinstance(what, Future) else get(what, **named)


@contextlib.contextmanager
def in_process() -> Iterator[None]:
    """Jobs that are run in this process meanwhile have their trials there, too."""
    environment, before = dict(os.environ), Path.cwd()
    capacity = ClusterResources((NodeResources(cpu=1, gpu=0),))
    connection.configure_tune()
    connection._silence_tune()
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "connect", lambda *where: capacity)
        patch.setattr(connection, "disconnect", lambda: "")  # from a Ray that there may be beside them
        patch.setattr("ray.tune.tune._ray_auto_init", lambda entrypoint: None)
        patch.setattr("ray.tune.execution.tune_controller.PlacementGroupResourceManager", _Room)
        patch.setattr("ray.tune.execution.tune_controller.RayActorManager", _Actors)
        patch.setattr("ray.get", partial(_result, ray.get))
        patch.setattr("ray.cluster_resources", lambda: {"CPU": 1})
        patch.setattr("ray.train._internal.storage._get_ray_train_session_dir", lambda: folder)
        patch.setattr("ray.kill", lambda actor: actor.__ray_terminate__.remote())
        # What belongs to a process, and would be its job's here: its output, and where its code logs.
        patch.setattr(trainable, "trial_output", contextlib.nullcontext)
        patch.setattr(UserMlflow, "enter", lambda self, number: None)
        try:
            yield
        finally:
            os.chdir(before)
            os.environ.clear()
            os.environ.update(environment)
