"""Workers that Ray takes away, whatever error it has for that."""

from typing import Any

import pytest
from ray.air.execution import FixedResourceManager
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError, WorkerCrashedError

from tuner.ray_backend.internals import internal
from tuner.ray_backend.tune_internals import LostWorkers

MENDED = type("Mended", (LostWorkers, internal("RayActorManager")), {})
LOW = "1 worker(s) were killed due to the node running low on memory."


def told(manager: Any, error: Exception) -> list[tuple[str, Exception]]:
    """What the control loop is told when a task of a worker ends with an error."""
    said: list[tuple[str, Exception]] = []
    tracked = internal("TrackedActor")(1, on_error=lambda actor, why: said.append(("worker", why)))
    task = internal("TrackedActorTask")(tracked, on_error=lambda actor, why: said.append(("task", why)))
    made = manager(FixedResourceManager({}))
    made._cleanup_actor = lambda tracked_actor: None  # it never started one
    made._actor_task_failed(task, error)
    return said


@pytest.mark.slow
@pytest.mark.parametrize("error", [OutOfMemoryError(f"{LOW}\nMemory on the node ..."), WorkerCrashedError()])
def test_any_error_of_ray_is_a_lost_worker(error: RayError) -> None:
    said = told(MENDED, error)
    assert [who for who, _ in said] == ["worker", "task"]
    assert all(isinstance(why, RayActorError) for _, why in said)
    assert str(said[0][1]) == str(error).partition("\n")[0]
    with pytest.raises(RuntimeError):  # without the mend the job ends
        told(internal("RayActorManager"), error)


def test_an_error_of_the_task_is_none_of_the_worker() -> None:
    error = RayTaskError("train", "Traceback", ValueError("wrong"))
    assert told(MENDED, error) == [("task", error)]
