"""Several hosts on one machine, where that is permitted; a test that needs them says there that it was skipped."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import hosts
from benchmarks.hosts import SOON as SOON
from benchmarks.hosts import Host as Host
from benchmarks.hosts import Network as Network

RAY = {"RAY_prestart_worker_first_driver": "false", "RAY_worker_niceness": "0"}
"""With these, a Ray starts no worker before there is work for one, as no trial runs on such a worker; and trials do not
have to wait until no other test computes."""


@contextlib.contextmanager
def network(folder: Path, **environment: str) -> Iterator[Network]:
    """A `Network`, gone afterwards."""
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(hosts.network(folder, **RAY, **environment))
        except hosts.NotPermitted as error:
            pytest.skip(f"network namespaces are not permitted here: {error}")
        yield made
