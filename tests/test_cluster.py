"""Sharing out what there is. What needs a running Ray is tested in test_run.py."""

import gc
import weakref
from typing import Any

import pytest
import ray

from tuner.cluster import Capacity, Share, address_of, disconnect, local_capacity, share
from tuner.errors import UserError
from tuner.spec import Resources


@pytest.mark.parametrize(
    ("resources", "capacity", "trials", "expected"),
    [
        ({}, (2, 0), 6, Share(1, 0, 2)),
        ({"cpu": 2}, (7, 0), 6, Share(2, 0, 3)),
        ({"cpu": 0.5}, (2, 0), 6, Share(0.5, 0, 4)),
        ({"gpu": 0}, (4, 2), 6, Share(1, 0, 4)),  # GPUs are there and not wanted
        ({}, (16, 8), 16, Share(1, 0.5, 16)),  # two trials a GPU
        ({}, (8, 8), 100, Share(1, 1, 8)),
        ({}, (16, 8), 2, Share(1, 1, 8)),  # few trials: a whole GPU each
        ({}, (64, 1), 100, Share(1, 0.25, 4)),  # never more than four a GPU
        ({}, (3, 2), 100, Share(1, 1, 2)),  # two thirds of a GPU cannot be shared: a whole one
        ({"gpu": 0.25}, (2, 1), 6, Share(1, 0.25, 2)),  # as many as there are cores
        ({"gpu": 2}, (16, 8), 6, Share(1, 2, 4)),
    ],
)
def test_share(resources: dict[str, Any], capacity: tuple[int, int], trials: int, expected: Share) -> None:
    found = share(Resources.model_validate(resources), Capacity(*capacity), trials)
    assert found == expected
    assert found.slots * found.gpu <= capacity[1]
    assert found.slots * found.cpu <= capacity[0]


@pytest.mark.parametrize(("cpu", "threads"), [(0.5, 1), (1, 1), (2, 2), (3.5, 3)])
def test_a_trial_computes_on_as_many_threads_as_it_has_cores(cpu: float, threads: int) -> None:
    assert Share(cpu, 0, 1).threads == threads


def test_what_cannot_be_had_is_said_at_once_and_together() -> None:
    with pytest.raises(UserError) as caught:
        share(Resources(cpu=4, gpu=2), Capacity(2, 1), trials=3)
    assert [str(problem) for problem in caught.value.problems] == [
        "resources.cpu: a trial asks for 4 CPU cores, but there are 2\n    allowed: up to 2",
        "resources.gpu: a trial asks for 2 GPUs, but there are 1\n    allowed: up to 1, or auto",
    ]


def test_the_address_is_the_one_given_else_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert address_of(None) is None
    assert address_of("ray://a:1") == "ray://a:1"
    monkeypatch.setenv("RAY_ADDRESS", "b:2")
    assert address_of(None) == "b:2"
    assert address_of("ray://a:1") == "ray://a:1"
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert address_of(None) is None


def test_this_machine_has_a_core() -> None:
    assert local_capacity().cpu >= 1


def test_nothing_of_rays_is_found_by_the_garbage_collector_while_it_shuts_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference that dies then would end the process, silently, with status 1."""

    class Circle:
        def __init__(self) -> None:
            self.me = self

    dead = weakref.ref(Circle())
    assert dead() is not None
    seen: list[tuple[bool, bool]] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: seen.append((dead() is None, gc.isenabled())))
    disconnect()
    assert seen == [(True, False)]
    assert gc.isenabled()
