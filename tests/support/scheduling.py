"""The order of the tests, and which of them pytest-xdist has run by the same worker: a plugin of pytest."""

from collections import Counter

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadGroupScheduling

_HEAVY = ("cluster", "server", "browser")
"""Markers of what loads the machine so much that two of them would miss each other's deadlines."""
_GROUPS = ("heavy", "ray")
"""In the order in which they begin."""


class Scheduling(LoadGroupScheduling):  # type: ignore[misc]
    """Has each file run by one worker, as its fixtures are for all of it; of what is a group, all by one of them."""

    def _split_scope(self, nodeid: str) -> str:
        return str(super()._split_scope(nodeid).partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadGroupScheduling | None:
    return Scheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have what takes longest begin first, as else it would be waited for at the end: workers are given files in turn.

    What is heavy is one group, whose tests run one after the other; so is what shares `started_ray`.
    """
    for item in filter(_group, items):  # where servers or a Ray are started, too
        item.add_marker(pytest.mark.slow)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))

    def turn(item: pytest.Item) -> tuple[int, int]:
        group = _group(item)
        return _GROUPS.index(group) if group else len(_GROUPS), -slow[item.path]

    for item in items:
        if group := _group(item):
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=turn)


def _group(item: pytest.Item) -> str:
    """The tests that are run by the same worker wherever they stand; empty for those of the item's file."""
    if any(item.get_closest_marker(name) for name in _HEAVY):
        return "heavy"
    return "ray" if "started_ray" in getattr(item, "fixturenames", ()) else ""
