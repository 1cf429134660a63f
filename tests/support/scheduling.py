"""The order of the tests, and which of them pytest-xdist has run by the same worker: a plugin of pytest."""

import os
from collections import Counter

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_GROUPS = ("cluster", "server", "ray")
"""In the order in which they begin. Tests of a group run one after another: they load the machine, or share a Ray."""
_MARKERS = {"cluster": "cluster", "server": "server", "browser": "server"}
"""The group of what has a marker. What a server shows is looked at in the browser that reports are looked at in."""


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Has each file run by one worker, as its fixtures are for all of it; of what is a group, all by one of them."""

    def _split_scope(self, nodeid: str) -> str:
        group = nodeid.rpartition("@")[2]
        return group if group in _GROUPS else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    return Scheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A worker for each core, up to four; one more where slow tests wait for the processes that they start."""
    return min(4, os.cpu_count() or 1) + ("not slow" not in config.option.markexpr)


@pytest.hookimpl(tryfirst=True)  # before markers choose
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have what takes longest begin first, as else it would be waited for at the end: workers are given files in turn.

    The workers tell the group of a test by its id: the scheduler gets nothing else of them.
    """
    groups = {item: _group(item) for item in items}
    for item in items:
        if groups[item]:  # servers or a Ray are started, too
            item.add_marker(pytest.mark.slow)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))

    def turn(item: pytest.Item) -> tuple[int, int]:
        group = groups[item]
        return _GROUPS.index(group) if group else len(_GROUPS), -slow[item.path]

    items.sort(key=turn)
    if hasattr(config, "workerinput"):
        for item in items:
            if groups[item]:
                _rename(item, f"{item.nodeid}@{groups[item]}")


def _rename(item: pytest.Item, nodeid: str) -> None:
    """Give a test another id. Pytest has no public name for it; pytest-xdist sets one that pytest no longer reads."""
    item._id = type(item._id).parse(nodeid)
    assert item.nodeid == nodeid


def _group(item: pytest.Item) -> str:
    """The tests that are run by the same worker wherever they stand; empty for those of the item's file."""
    for name, group in _MARKERS.items():
        if item.get_closest_marker(name):
            return group
    return "ray" if "started_ray" in getattr(item, "fixturenames", ()) else ""
