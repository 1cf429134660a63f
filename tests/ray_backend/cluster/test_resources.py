"""Sharing out what there is. What needs a running Ray is tested in end_to_end/test_run.py."""

import gc
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from conftest import experiment

from tuner.errors import UserError
from tuner.process import gpus
from tuner.process.gpus import Gpu
from tuner.ray_backend.cluster import connection, resources
from tuner.ray_backend.cluster.address import address_of
from tuner.ray_backend.cluster.connection import disconnect
from tuner.ray_backend.cluster.resources import (
    ClusterResources,
    NodeResources,
    TrialResources,
    check_node,
    idle_gpus,
    local_capacity,
    share,
    share_of,
    with_own_resources,
)
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.sections import Resources


@pytest.mark.parametrize(
    ("resources", "capacity", "trials", "expected"),
    [
        ({}, (2, 0), 6, TrialResources(1, 0, 2)),
        ({"cpu": 2}, (7, 0), 6, TrialResources(2, 0, 3)),
        ({"cpu": 0.5}, (2, 0), 6, TrialResources(0.5, 0, 4)),
        ({"gpu": 0}, (4, 2), 6, TrialResources(1, 0, 4)),  # GPUs are there and not wanted
        ({}, (16, 8), 16, TrialResources(1, 0.5, 16)),  # two trials a GPU
        ({}, (8, 8), 100, TrialResources(1, 1, 8)),
        ({}, (16, 8), 2, TrialResources(1, 1, 8)),  # few trials: a whole GPU each
        ({}, (64, 1), 100, TrialResources(1, 0.25, 4)),  # never more than four a GPU
        ({}, (3, 2), 100, TrialResources(1, 1, 2)),  # two thirds of a GPU cannot be shared: a whole one
        ({"gpu": 0.25}, (2, 1), 6, TrialResources(1, 0.25, 2)),  # as many as there are cores
        ({"gpu": 2}, (16, 8), 6, TrialResources(2, 2, 4, ranks=2)),
        ({"cpu": 3, "gpu": 4}, (16, 8), 6, TrialResources(12, 4, 1, ranks=4)),  # as many as there are cores
        ({"workers": 2}, (5, 0), 6, TrialResources(2, 0, 2, ranks=2)),
        ({"workers": 2, "gpu": 0, "cpu": 0.5}, (4, 2), 6, TrialResources(1, 0, 4, ranks=2)),
        ({"workers": 2}, (8, 4), 6, TrialResources(2, 2, 2, ranks=2)),  # a GPU each, where there are any
    ],
)
def test_share(resources: dict[str, Any], capacity: tuple[int, int], trials: int, expected: TrialResources) -> None:
    found = share(Resources.model_validate(resources), ClusterResources((NodeResources(*capacity),)), trials)
    assert found == expected
    assert found.slots * found.gpu <= capacity[1]
    assert found.slots * found.cpu <= capacity[0]


@pytest.mark.parametrize(
    ("resources", "now", "later", "expected"),
    [
        ({"cpu": 2}, [(3, 0), (3, 0)], [], TrialResources(2, 0, 2)),  # a core of each is left over
        ({}, [(16, 0), (4, 1)], [], TrialResources(1, 0.25, 4)),  # the cores of a machine without a GPU are of no use
        ({"gpu": 0}, [(16, 0), (4, 1)], [], TrialResources(1, 0, 20)),
        ({}, [(4, 0), (0.5, 1)], [], TrialResources(1, 0, 4)),  # a GPU that no trial can use
        ({}, [(0, 0)], [(2, 0)] * 3, TrialResources(1, 0, 0, 6)),
        ({}, [(0, 0)], [(4, 1)] * 8, TrialResources(1, 0.25, 0, 32)),  # GPUs that are to come are shared, too
        ({"cpu": 4}, [(2, 0)], [(8, 0)], TrialResources(4, 0, 0, 2)),
        ({"gpu": 2}, [(8, 1), (8, 1)], [(8, 2)], TrialResources(2, 2, 0, 1, ranks=2)),
    ],
)
def test_a_trial_has_room_on_one_machine(
    resources: dict[str, Any],
    now: list[tuple[float, float]],
    later: list[tuple[float, float]],
    expected: TrialResources,
) -> None:
    capacity = ClusterResources(
        tuple(NodeResources(*each) for each in now), tuple(NodeResources(*each) for each in later)
    )
    found = share(Resources.model_validate(resources), capacity, 100)
    assert found == expected
    assert found.ahead >= 1 and ("autoscaler" in found.explain()) == (found.later > 0)


@pytest.mark.parametrize(
    ("resources", "machines", "said"),
    [
        ({"cpu": 4}, [(2, 0)] * 3, "resources.cpu: a trial asks for 4 CPU cores, but no node has more than 2"),
        ({"gpu": 2}, [(8, 1)] * 2, "resources.gpu: a trial asks for 2 GPUs, but no node has more than 1"),
        ({"cpu": 8, "gpu": 1}, [(16, 0), (4, 1)], "a trial asks for 8 CPU cores and 1 GPUs, and no node has both"),
        ({"workers": 4}, [(8, 2)] * 2, "resources.workers: a trial asks for 4 GPUs, but no node has more than 2"),
        (
            {"workers": 3, "cpu": 2},
            [(4, 0)] * 2,
            "resources.workers: 3 processes of 2 CPU cores each are 6 cores, but no node has more than 4\n"
            "    allowed: up to 2, or fewer cores for each",
        ),
        ({"gpu": 4, "cpu": 4}, [(8, 4)] * 2, "resources.gpu: 4 processes of 4 CPU cores each are 16 cores"),
        ({}, [], "resources.cpu: a trial asks for 1 CPU cores, but no node has more than 0"),
    ],
)
def test_what_no_machine_has_is_refused_whatever_the_sum(
    resources: dict[str, Any], machines: list[tuple[float, float]], said: str
) -> None:
    for capacity in (
        ClusterResources(tuple(NodeResources(*m) for m in machines)),
        ClusterResources((), tuple(NodeResources(*m) for m in machines)),
    ):
        with pytest.raises(UserError, match=said):
            share(Resources.model_validate(resources), capacity, trials=3)


@pytest.mark.parametrize(
    ("changes", "gpus", "why"),
    [
        ({"trial.graph": "on"}, 0, "a trial has no GPU"),
        ({"trial.graph": "on", "resources": {"gpu": 0}}, 1, "a trial has no GPU"),
        ({"trial.graph": "on", "resources": {"gpu": 2}}, 2, "it trains in several processes"),
        ({"space": {"graph": {"choice": ["off", "on"]}}}, 0, "a trial has no GPU"),
        ({"trial.graph": "on", "resources": {"gpu": 0.5}}, 1, ""),
        ({"space": {"graph": {"choice": ["auto", "off"]}}}, 0, ""),
    ],
)
def test_what_cannot_be_recorded_as_a_graph_is_refused(changes: dict[str, Any], gpus: int, why: str) -> None:
    changes = dict(changes)
    trial: dict[str, Any] = {"data": {"kind": "digits"}, "model": {"kind": "cnn"}}
    trial["graph"] = changes.pop("trial.graph", "auto")
    spec, capacity = experiment(trial=trial, **changes), ClusterResources((NodeResources(8, gpus),))
    if not why:
        assert share_of(spec, capacity, 2).slots
        return
    with pytest.raises(UserError, match=rf"^trial\.graph: on: the steps of a trial cannot be recorded, since {why}"):
        share_of(spec, capacity, 2)


@pytest.mark.parametrize("changes", [{"compile": "on"}, {"space": {"compile": {"choice": ["off", "on"]}}}])
def test_models_are_not_compiled_in_several_processes(changes: dict[str, Any]) -> None:
    changes = dict(changes)
    trial = {"data": {"kind": "digits"}, "model": {"kind": "cnn"}, "compile": changes.pop("compile", "auto")}
    capacity = ClusterResources((NodeResources(8, 2),))
    assert share_of(experiment(trial=trial, **changes), capacity, 2).slots
    with pytest.raises(UserError, match=r"^trial\.compile: on: .* since it trains in several processes"):
        share_of(experiment(trial=trial, resources={"gpu": 2}, **changes), capacity, 2)


class TestTheNode:
    """What the node lacks that trials are to run on."""

    @staticmethod
    def spec(**trial: Any) -> ExperimentSpec:
        return experiment(trial={"data": {"kind": "digits"}, "model": {"kind": "cnn"}} | trial)

    def test_a_trial_that_demands_nothing(self) -> None:
        check_node(self.spec(), 0)

    def test_there_is_no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resources, "why_none", lambda: "the driver is too old: update it")
        with pytest.raises(
            UserError, match=r"resources\.gpu: a trial asks for 1 GPUs, and torch sees none: the driver"
        ):
            check_node(self.spec(), 1)
        with pytest.raises(UserError, match="asks for 2 GPUs, but there are 0: the driver is too old: update it"):
            share(Resources(gpu=2), ClusterResources((NodeResources(2, 0),)), 1)
        with pytest.raises(UserError) as elsewhere:  # the node of a cluster, where this torch does not look
            share(Resources(gpu=2), ClusterResources((NodeResources(2, 0, id="1f"),)), 1)
        assert "driver" not in str(elsewhere.value)

    def test_gpus_that_torch_cannot_use_are_said_to_be_idle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resources, "installed", lambda: [Gpu("Tesla T4", (7, 5), 80 * 2**30)])
        monkeypatch.setattr(resources, "why_none", lambda: "the driver is too old: update it")
        assert idle_gpus() == "trials train on CPU cores and not on Tesla T4: the driver is too old: update it"
        monkeypatch.setattr(resources, "why_none", lambda: "")
        assert idle_gpus() == ""

    def test_gpus_are_counted_that_torch_can_use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert local_capacity().gpu == 0
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert local_capacity().gpu == 1

    @pytest.mark.parametrize("where", ["trial", "space"])
    def test_no_gpu_has_bfloat16(self, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resources, "why_none", lambda: "")
        spec = self.spec(precision="bfloat16")
        if where == "space":
            space = {"precision": {"choice": ["float32", "bfloat16"]}}
            spec = experiment(trial={"data": {"kind": "digits"}, "model": {"kind": "cnn"}}, space=space)
        cards = [Gpu("Tesla T4", (7, 5), 80 * 2**30)]
        monkeypatch.setattr(gpus, "installed", lambda: cards)
        check_node(spec, 0)
        with pytest.raises(UserError, match=r"trial\.precision: bfloat16: Tesla T4 has no arithmetic in it"):
            check_node(spec, 1)
        cards.append(Gpu("NVIDIA A100", (8, 0), 40 * 2**30))  # the trial may get that one
        check_node(spec, 1)

    def test_its_gpu_has_no_room_for_so_many_processes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resources, "why_none", lambda: "")
        monkeypatch.setattr(gpus, "installed", lambda: [Gpu("Tesla T4", (7, 5), 16 * 2**30)])
        check_node(self.spec(), 0.01)  # they share one
        space = {"config.x": {"grid": [1, 2]}}
        objective = {"metric": "loss", "mode": "min"}
        spec = experiment(trial={"target": "json:dumps", "config": {"x": 1}}, space=space, objective=objective)
        check_node(spec, 0.05)
        with pytest.raises(UserError, match=r"resources\.gpu: 0\.01: 100 processes would share a GPU"):
            check_node(spec, 0.01)

    def test_there_is_no_compiler(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CXX", raising=False)
        with pytest.raises(UserError, match=r"trial\.compile: on: .* there is no C\+\+ compiler on this machine"):
            check_node(self.spec(compile="on"), 0)
        check_node(self.spec(compile="auto"), 0)


def test_a_function_of_ones_own_is_one_process_with_all_gpus() -> None:
    capacity = ClusterResources((NodeResources(4, 2),))
    assert share(Resources(gpu=2), capacity, trials=1, alone=True) == TrialResources(1, 2, 1)


ASKING = """
from ray import tune

train = tune.with_resources(lambda config: 1, {resources})
"""


def asking(module: str, **parts: Any) -> ExperimentSpec:
    """An experiment with a function that asks for resources itself."""
    objective = {"metric": "loss", "mode": "min"}
    trial, search = {"target": f"{module}:train"}, {"kind": "grid"}
    return experiment(objective=objective, trial=trial, space={}, search=search, **parts)


@pytest.mark.parametrize(
    ("asked", "said", "cpu", "gpu", "told"),
    [
        ({"cpu": 2}, {}, 2, 0, ""),
        ({"gpu": 0.5}, {}, 1, 0.5, ""),
        ({"cpu": 2, "gpu": 1}, {"cpu": 2}, 2, 1, ""),
        (
            {"cpu": 2},
            {"cpu": 1, "gpu": "auto"},
            1,
            "auto",
            "asks for cpu 2, gpu 0 (tune.with_resources); the file says",
        ),
        ({"cpu": 1, "special": 1}, {"cpu": 1}, 1, "auto", "the resources of the file are used"),
    ],
)
def test_a_function_that_asks_for_resources_gets_them_unless_the_file_says_otherwise(
    own: Callable[[str], str], asked: dict[str, float], said: dict[str, Any], cpu: float, gpu: Any, told: str
) -> None:
    spec = asking(own(ASKING.format(resources=asked)), **({"resources": said} if said else {}))
    found, note = with_own_resources(spec)
    assert (found.resources.cpu, found.resources.gpu) == (cpu, gpu)
    assert told in note and bool(told) == bool(note)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("tune.PlacementGroupFactory([{'CPU': 1}, {'CPU': 2}])", "asks for [{'CPU': 1.0}, {'CPU': 2.0}]"),
        ("lambda config: tune.PlacementGroupFactory([{'CPU': 1}])", "asks for resources by its config"),
        ({"cpu": 1, "gpu": 1.5}, "resources.gpu: 1.5 is neither a share of a GPU"),
    ],
)
def test_a_function_that_asks_for_what_no_trial_can_be_given_is_refused(
    own: Callable[[str], str], asked: Any, words: str
) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        with_own_resources(asking(own(ASKING.format(resources=asked))))


@pytest.mark.parametrize(("cpu", "threads"), [(0.5, 1), (1, 1), (2, 2), (3.5, 3)])
def test_a_trial_computes_on_as_many_threads_as_it_has_cores(cpu: float, threads: int) -> None:
    assert TrialResources(cpu, 0, 1).threads == threads


def test_what_cannot_be_had_is_said_at_once_and_together() -> None:
    with pytest.raises(UserError) as caught:
        share(Resources(cpu=4, gpu=2), ClusterResources((NodeResources(2, 1),)), trials=3)
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


@pytest.mark.slow
def test_nothing_of_rays_is_found_by_the_garbage_collector_while_it_shuts_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference that dies then would end the process, silently, with status 1."""

    class Circle:
        def __init__(self) -> None:
            self.me = self

    dead = weakref.ref(Circle())
    assert dead() is not None
    seen: list[tuple[bool, bool]] = []
    monkeypatch.setattr(connection, "_own_session", lambda: None)  # where a Ray of this process has its files
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: seen.append((dead() is None, gc.isenabled())))
    disconnect()
    assert seen == [(True, False)]
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("gpu", "is_hosted", "measured"), [("auto", True, 0.25), ("auto", False, 0.02), (0.02, True, 0.02)]
)
def test_batches_are_measured_with_more_memory_than_the_share_that_a_host_decides(
    gpu: Any, is_hosted: bool, measured: float
) -> None:
    share = resources.TrialResources(cpu=1, gpu=0.02, slots=50, is_hosted=is_hosted)
    assert resources.for_measuring(share, Resources(gpu=gpu)).gpu == measured
