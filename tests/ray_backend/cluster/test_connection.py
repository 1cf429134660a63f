"""A job's own Ray: which processes it has, and whether they still answer."""

import base64
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import psutil
import pytest

from tuner.errors import UserError
from tuner.ray_backend.cluster import connection, dashboard_agent, shutdown


@pytest.mark.usefixtures("started_ray")
def test_it_has_no_process_that_no_job_uses() -> None:
    commands = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            commands.append(" ".join(process.cmdline()))
    assert [command for command in commands if "/raylet/raylet " in command]
    agents = [command for command in commands if command.startswith(f"{sys.executable} -I -S")]
    assert len(agents) == 1 and dashboard_agent.__file__ in agents[0]
    unused = ("/dashboard/dashboard.py", "/log_monitor.py", "/monitor.py", "ray::DashboardAgent")
    assert not [command for command in commands if any(script in command for script in unused)]
    (server,) = [command for command in commands if "/gcs_server " in command]
    settings = re.search(r"--config_list=(\S+)", server)
    assert settings and not json.loads(base64.b64decode(settings[1]))["prestart_worker_first_driver"]


NODE = "ab" * 28


def agent(folder: Path, parent: int) -> subprocess.Popen[bytes]:
    options = [f"--session-dir={folder}", f"--node-id={NODE}", "--minimal"]
    command = [sys.executable, "-I", "-S", dashboard_agent.__file__, "/ray/agent.py", *options]
    return subprocess.Popen(command, env=os.environ | {"RAY_RAYLET_PID": str(parent)})


def test_the_agent_of_no_dashboard_tells_of_no_ports_and_ends_with_the_node_manager(tmp_path: Path) -> None:
    persist_port = resolve_name("ray._raylet:persist_port")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    persist_port(str(theirs), NODE, dashboard_agent.PORTS[0], -1)
    assert agent(tmp_path, parent=1).wait(timeout=30) == 0
    files = {file.name: file.read_text() for file in tmp_path.glob(f"*_port_{NODE}")}
    assert files == {f"{port}_{NODE}": "-1" for port in dashboard_agent.PORTS}
    assert {file.name: file.read_text() for file in theirs.iterdir()}.items() <= files.items()


def test_the_agent_stays_as_long_as_the_node_manager(tmp_path: Path) -> None:
    process = agent(tmp_path, os.getpid())
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("[::1]", socket.AF_INET6)])
def test_a_process_that_accepts_no_more_connections_does_not_answer(host: str, family: int) -> None:
    with socket.socket(family) as listener:
        try:
            listener.bind((host.strip("[]"), 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        address = f"{host}:{listener.getsockname()[1]}"
        listener.listen()
        assert shutdown._answers(address)
    assert not shutdown._answers(address)


STOPPED = """
import os, signal, sys, psutil
from ray.air.execution.resources.placement_group import PlacementGroupResourceManager, ResourceRequest
from tuner.ray_backend.cluster import connection, shutdown

shutdown._SHUTDOWN_TIMEOUT = 2.0
connection.connect(None)
if sys.argv[1] == "garbage":  # as Tune leaves it: it asks Ray when it is freed
    manager = PlacementGroupResourceManager()
    manager.request_resources(ResourceRequest([{"CPU": 1}]))
    manager.itself = manager
    del manager
children = psutil.Process().children(recursive=True)
[server] = [each for each in children if each.name() == "gcs_server"]
os.kill(server.pid, signal.SIGSTOP)  # the kernel still accepts connections for it
connection.disconnect()
psutil.wait_procs(children, timeout=30)
print("left:", [each.name() for each in psutil.Process().children(recursive=True)], flush=True)
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("left", ["nothing", "garbage"])
def test_a_ray_that_accepts_connections_and_does_not_answer_is_ended(left: str) -> None:
    process = subprocess.run(
        [sys.executable, "-c", STOPPED, left], capture_output=True, text=True, timeout=150, check=False
    )
    assert (process.returncode, process.stdout.strip()) == (0, "left: []"), process.stderr


ASKED = """
import os, psutil, signal
from tuner.ray_backend.cluster import connection

connection._REQUEST_TIMEOUT = 3
connection.connect(None)
import ray

[server] = [each for each in psutil.Process().children(recursive=True) if each.name() == "gcs_server"]
os.kill(server.pid, signal.SIGSTOP)
signal.alarm(40)  # Ray's own limit is 60 seconds
try:
    ray.util.placement_group([{"CPU": 1}])
except ray.exceptions.GetTimeoutError:
    os._exit(7)
"""


@pytest.mark.slow
def test_a_request_that_ray_does_not_answer_comes_back_before_ray_ends_the_process() -> None:
    # What a job in this process has set would hold there, too.
    environment = {key: value for key, value in os.environ.items() if key != "RAY_gcs_server_request_timeout_seconds"}
    process = subprocess.run(
        [sys.executable, "-c", ASKED], env=environment, capture_output=True, text=True, timeout=150, check=False
    )
    assert process.returncode == 7, process.stderr
    assert connection._REQUEST_TIMEOUT + shutdown._SHUTDOWN_TIMEOUT < 60


SIGNALLED = """
import os, time, psutil
from tuner.ray_backend.cluster import connection

connection.connect(None)
children = psutil.Process().children(recursive=True)
for each in children:
    each.kill()
psutil.wait_procs(children)
connection.disconnect()
time.sleep(10 + float(os.environ["RAY_gcs_rpc_server_reconnect_timeout_s"]))
os._exit(7)
"""


@pytest.mark.slow
def test_a_ray_that_was_ended_does_not_end_the_process_that_left_it() -> None:
    environment = os.environ | {"RAY_gcs_rpc_server_reconnect_timeout_s": "20"}  # Ray's default is 60
    process = subprocess.run(
        [sys.executable, "-c", SIGNALLED], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert process.returncode == 7, process.stderr


def test_a_machine_that_is_too_busy_for_a_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(**options: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because ...")  # as Ray does

    monkeypatch.setattr("ray.init", late)
    with pytest.raises(UserError, match=r"Ray did not start on this machine within 30 seconds.*\n.*busy"):
        connection.connect(None)
