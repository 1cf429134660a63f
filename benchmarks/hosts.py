"""Several hosts on one machine: network namespaces that one switch joins. Linux, as root.

All hosts see the same files, but for Ray's own folder: raylets that start together would clash there. A folder that the
caller chooses is so a shared one; `Host.hide` takes it away from one host.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

_RAY = Path("/tmp/ray")
_PORT = 6379
_NAMES = {"hosts": "127.0.0.1 localhost\n", "resolv.conf": "nameserver 127.0.0.1\n"}
"""No name server answers, at once: one that cannot be reached is waited for."""

SOON = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""Ray gives a machine up after three answers that did not come, one a second."""


class NotPermitted(Exception):
    """Network namespaces are not permitted here, and why."""


class Host:
    """A machine: an address, a name, a cable, and the processes that run there."""

    def __init__(self, name: str, space: str, address: str, folder: Path, environment: Mapping[str, str]) -> None:
        for own in ("ray", "tmp"):
            (folder / own).mkdir(parents=True)
        self.name = name
        self.address = address
        self.folder = folder
        """What this host has to itself."""
        # Ray looks there, too, and its sockets must not have long names.
        self.environment = dict(environment) | {"TMPDIR": str(folder / "tmp"), "RAY_TMPDIR": "/tmp"}
        self._space = space
        names = folder.parent
        self._instead = {_RAY: folder / "ray"} | {Path("/etc", file): names / file for file in _NAMES}
        """What is found there instead of what the machine has."""

    def hide(self, path: Path) -> None:
        """From now on processes of this host find another folder there, an empty one."""
        self._instead[path] = self.folder / f"instead-{len(self._instead)}"
        self._instead[path].mkdir()

    def popen(self, *command: str | Path, **options: Any) -> "subprocess.Popen[str]":
        """Start a command on this host, with its output as text in a pipe unless `options` say otherwise."""
        mounts = [f"mount --bind '{there}' '{here}'" for here, there in self._instead.items()]
        script = " && ".join([*mounts, f"hostname {self.name}", 'exec "$@"'])
        inside = ["ip", "netns", "exec", self._space, "unshare", "--uts", "sh", "-c", script, "sh"]
        output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "env": self.environment}
        return subprocess.Popen([*inside, *map(str, command)], text=True, **(output | options))

    def run(self, *command: str | Path, timeout: float = 120, **options: Any) -> str:
        """Run a command on this host to its end; it has to succeed. Returns its output."""
        process = self.popen(*command, **options)
        try:
            said, _ = process.communicate(timeout=timeout)
        finally:
            process.kill()
        assert process.returncode == 0, f"{self.name}: {command}: {said}"
        return said

    def start_ray(self, *arguments: str, head: "Host | None" = None) -> None:
        """Start Ray here: a head, or a worker of `head`; `arguments` as for ``ray start``."""
        where = [f"--address={head.address}:{_PORT}"] if head else ["--head", f"--port={_PORT}"]
        if head is None and not any("dashboard" in argument for argument in arguments):
            where.append("--include-dashboard=false")
        common = [f"--node-ip-address={self.address}", "--object-store-memory=80000000", "--disable-usage-stats"]
        log = self.folder / "ray-start.log"
        with log.open("w") as output:  # a pipe would stay open as long as Ray's processes
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", *where, *common, *arguments]
            process = self.popen(*command, stdout=output)
            assert process.wait(120) == 0, log.read_text()

    @property
    def ray_address(self) -> str:
        """Where others reach the Ray whose head is here."""
        return f"{self.address}:{_PORT}"

    def processes(self) -> list[int]:
        """Ids of all processes that run here."""
        return [int(pid) for pid in _ip("netns", "pids", self._space).split()]

    def trials(self) -> list[psutil.Process]:
        """Its processes that train."""
        found = []
        for pid in self.processes():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if "ImplicitFunc" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def driver(self, command: list[str], *, env: Mapping[str, str], **options: Any) -> "subprocess.Popen[str]":
        """Start a driver here, on the Ray whose head this is."""
        there = {"RAY_ADDRESS": self.ray_address}
        return self.popen(*command, env={**env, **self.environment, **there}, **options)

    def kill(self) -> None:
        """End all of its processes, as if the power went."""
        deadline = time.monotonic() + 30
        while pids := self.processes():
            assert time.monotonic() < deadline, f"{self.name}: {pids} do not end"
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def cut(self) -> None:
        """Pull its cable: what is sent is lost, and no connection is closed."""
        _ip("-n", self._space, "link", "set", "eth0", "down")

    def mend(self) -> None:
        """Put its cable back."""
        _ip("-n", self._space, "link", "set", "eth0", "up")
        _ip("-n", self._space, "route", "replace", "default", "dev", "eth0")


class Network:
    """Hosts that one switch joins. Nothing of it is seen outside: two networks may have the same addresses."""

    def __init__(self, folder: Path, **environment: str) -> None:
        """Make a network without hosts. Whoever runs Ray there has a token, and asks for it.

        Args:
            folder: Where each host has a folder of its own.
            environment: What processes on all hosts have in their environment, beside what this one has.
        """
        self.folder = folder
        without = ("RAY_", "MLFLOW_")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(without)}
        own = {"HOME": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        self._environment = inherited | own | token | environment
        self.name = f"hosts-{secrets.token_hex(4)}"
        self._spaces: list[str] = []
        self.hosts: list[Host] = []
        for file, text in _NAMES.items():
            (folder / file).write_text(text)
        self._switch = self._space("switch")
        _ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "switch", "up")

    def host(self, name: str, **environment: str) -> Host:
        """Another host, with `environment` beside that of all."""
        number = len(self.hosts) + 1
        space, port = self._space(name), f"port{number}"
        _ip("-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", self._switch)
        _ip("-n", self._switch, "link", "set", port, "master", "switch", "up")
        _ip("-n", space, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "lo", "up")
        with (self.folder / "hosts").open("a") as names:
            names.write(f"10.77.0.{number} {name}\n")
        host = Host(name, space, f"10.77.0.{number}", self.folder / name, self._environment | environment)
        host.mend()  # Ray finds its address by the route that it would take to the world
        self.hosts.append(host)
        return host

    def worker(self, head: Host, cores: int = 1) -> Host:
        """Another host, that trains for `head`."""
        host = self.host(f"host{len(self.hosts)}")
        host.start_ray(f"--num-cpus={cores}", head=head)
        return host

    def close(self) -> None:
        """End everything on all hosts, and the hosts."""
        for host in self.hosts:
            host.kill()
        for space in self._spaces:
            _ip("netns", "delete", space)

    def _space(self, name: str) -> str:
        _ip("netns", "add", f"{self.name}-{name}")
        self._spaces.append(f"{self.name}-{name}")
        return self._spaces[-1]


@contextlib.contextmanager
def network(folder: Path, **environment: str) -> Iterator[Network]:
    """A `Network`, gone afterwards.

    Raises:
        NotPermitted: There can be none here.
    """
    made = None
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        raise NotPermitted("iproute2 or util-linux is not installed")
    _RAY.mkdir(exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        made = Network(folder, **environment)
        made.host("first").run("true")
    except (subprocess.CalledProcessError, AssertionError) as error:
        if made is not None:
            made.close()
        why = getattr(error, "stderr", None) or str(error)
        raise NotPermitted(why.strip()) from None
    try:
        yield made
    finally:
        made.close()


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
    return done.stdout
