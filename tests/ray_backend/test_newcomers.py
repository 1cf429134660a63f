"""Machines that join, as the thread sees them that looks at them; with a real cluster: test_autoscaler.py."""

from typing import Any

import pytest
from conftest import eventually, experiment

from tuner.ray_backend import cluster, newcomers, node_check
from tuner.ray_backend.newcomers import Newcomers
from tuner.ray_backend.resources import NodeResources, TrialResources


def test_a_look_that_raises_is_told_and_who_comes_later_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[NodeResources] = []
    said, internal_errors = list[str](), list[Exception]()

    def check(spec: Any, machines: list[NodeResources], user_folder: None, **more: Any) -> list[NodeResources]:
        if machines[0].host == "odd":
            raise ValueError("it broke")
        return machines

    monkeypatch.setattr(newcomers, "_PAUSE", 0.02)
    monkeypatch.setattr(cluster, "machines", lambda: list(there))
    monkeypatch.setattr(node_check, "check", check)
    with Newcomers(experiment(), TrialResources(1, 0, 1), None, said.append, said.append, internal_errors.append):
        there.append(NodeResources(1, 0, "1", "odd"))
        assert eventually(lambda: bool(internal_errors))
        there.append(NodeResources(1, 0, "2", "sound"))
        assert eventually(lambda: bool(said))
    assert (said, [str(error) for error in internal_errors]) == (
        ["sound has joined, and is as the others"],
        ["it broke"],
    )
