"""Simulates the hosts of a cluster by network namespaces that a bridge connects. Needs Linux and root.

All hosts share the file system except Ray's folder, in which raylets that start at the same time would conflict.
`Host.hide` hides a shared folder from one host.
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
_COMMON = ["--disable-usage-stats", "--include-log-monitor=false"]  # no driver asks for the output of workers
_NAMES = {"hosts": "127.0.0.1 localhost\n", "resolv.conf": "nameserver 127.0.0.1\n"}
"""No name server listens there, so that look-ups fail at once; an unreachable server would cause a timeout."""

SOON = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""With these, Ray declares a node dead after three failed health checks, one a second."""


class NotPermitted(Exception):
    """Network namespaces cannot be created here; the message says why."""


class Host:
    """A simulated host: an address, a name, a network link, and the processes that run there."""

    def __init__(self, name: str, space: str, address: str, folder: Path, environment: Mapping[str, str]) -> None:
        for own in ("ray", "tmp"):
            (folder / own).mkdir(parents=True)
        self.name = name
        self.address = address
        self.folder = folder
        """A folder for the files of this host alone."""
        # Ray also uses TMPDIR, but the paths of its sockets have to be short.
        self.environment = dict(environment) | {"TMPDIR": str(folder / "tmp"), "RAY_TMPDIR": "/tmp"}
        self._space = space
        names = folder.parent
        self._instead = {_RAY: folder / "ray"} | {Path("/etc", file): names / file for file in _NAMES}
        """Folders and files that are mounted over paths of the real file system."""

    def hide(self, path: Path) -> None:
        """Show an empty folder at `path` to the processes that this host starts from now on."""
        self._instead[path] = self.folder / f"instead-{len(self._instead)}"
        self._instead[path].mkdir()

    def popen(self, *command: str | Path, **options: Any) -> "subprocess.Popen[str]":
        """Start a command on this host, with its output as text in a pipe unless `options` say otherwise."""
        mounts = [f"mount --bind '{source}' '{target}'" for target, source in self._instead.items()]
        script = " && ".join([*mounts, f"hostname {self.name}", 'exec "$@"'])
        inside = ["ip", "netns", "exec", self._space, "unshare", "--uts", "sh", "-c", script, "sh"]
        output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "env": self.environment}
        return subprocess.Popen([*inside, *map(str, command)], text=True, **(output | options))

    def run(self, *command: str | Path, timeout: float = 120, **options: Any) -> str:
        """Run a command on this host, assert that it succeeds, and return its output."""
        process = self.popen(*command, **options)
        try:
            output, _ = process.communicate(timeout=timeout)
        finally:
            process.kill()
        assert process.returncode == 0, f"{self.name}: {command}: {output}"
        return output

    def start_ray(self, *arguments: str, head: "Host | None" = None) -> None:
        """Start Ray on this host: a head node, or a worker node of `head`; `arguments` as for ``ray start``."""
        where = [f"--address={head.address}:{_PORT}"] if head else ["--head", f"--port={_PORT}"]
        if head is None and not any("dashboard" in argument for argument in arguments):
            where.append("--include-dashboard=false")
        common = [f"--node-ip-address={self.address}", "--object-store-memory=80000000", *_COMMON]
        log = self.folder / "ray-start.log"
        with log.open("w") as output:  # Ray's processes would keep a pipe open
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", *where, *common, *arguments]
            process = self.popen(*command, stdout=output)
            assert process.wait(120) == 0, log.read_text()

    @property
    def ray_address(self) -> str:
        """The address of the cluster whose head node is this host."""
        return f"{self.address}:{_PORT}"

    def processes(self) -> list[int]:
        """Return the ids of all processes of this host."""
        return [int(pid) for pid in _ip("netns", "pids", self._space).split()]

    def trials(self) -> list[psutil.Process]:
        """Return the processes of this host that run trials."""
        found = []
        for pid in self.processes():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if "ImplicitFunc" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def driver(self, command: list[str], *, env: Mapping[str, str], **options: Any) -> "subprocess.Popen[str]":
        """Start a driver on this host, which is the head node of its cluster."""
        address = {"RAY_ADDRESS": self.ray_address}
        return self.popen(*command, env={**env, **self.environment, **address}, **options)

    def kill(self) -> None:
        """Kill all processes of this host, as a power failure does."""
        deadline = time.monotonic() + 30
        while pids := self.processes():
            assert time.monotonic() < deadline, f"{self.name}: {pids} do not end"
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def cut(self) -> None:
        """Disconnect this host: packets are lost, and connections stay open."""
        _ip("-n", self._space, "link", "set", "eth0", "down")

    def mend(self) -> None:
        """Connect this host again."""
        _ip("-n", self._space, "link", "set", "eth0", "up")
        _ip("-n", self._space, "route", "replace", "default", "dev", "eth0")


class Network:
    """Hosts that a bridge connects. It is isolated: several networks may use the same addresses."""

    def __init__(self, folder: Path, **environment: str) -> None:
        """Create a network without hosts. Ray on its hosts uses token authentication.

        Args:
            folder: The folder in which each host gets a folder.
            environment: Environment variables for the processes of all hosts, in addition to those of this process.
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
        """Add a host; `environment` adds to the variables of all hosts."""
        number = len(self.hosts) + 1
        space, port = self._space(name), f"port{number}"
        _ip("-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", self._switch)
        _ip("-n", self._switch, "link", "set", port, "master", "switch", "up")
        _ip("-n", space, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "lo", "up")
        with (self.folder / "hosts").open("a") as names:
            names.write(f"10.77.0.{number} {name}\n")
        host = Host(name, space, f"10.77.0.{number}", self.folder / name, self._environment | environment)
        host.mend()  # Ray determines its address from the default route
        self.hosts.append(host)
        return host

    def worker(self, head: Host, cores: int = 1) -> Host:
        """Add a host that is a worker node of `head`."""
        host = self.host(f"host{len(self.hosts)}")
        host.start_ray(f"--num-cpus={cores}", head=head)
        return host

    def close(self) -> None:
        """Kill all processes of all hosts, and delete the hosts."""
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
    """Yield a `Network`, and close it afterwards.

    Raises:
        NotPermitted: No network can be created here.
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
