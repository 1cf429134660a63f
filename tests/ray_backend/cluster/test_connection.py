"""A job's own Ray: which processes it has, and whether they still answer."""

import base64
import contextlib
import json
import re
import socket
import subprocess
import sys

import psutil
import pytest

from tuner.errors import UserError
from tuner.ray_backend.cluster import connection


@pytest.mark.usefixtures("started_ray")
def test_it_has_no_process_that_no_job_uses() -> None:
    commands = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            commands.append(" ".join(process.cmdline()))
    assert [command for command in commands if "/raylet/raylet " in command]
    unused = ("/dashboard/dashboard.py", "/log_monitor.py", "/monitor.py")
    assert not [command for command in commands if any(script in command for script in unused)]
    (server,) = [command for command in commands if "/gcs_server " in command]
    settings = re.search(r"--config_list=(\S+)", server)
    assert settings and not json.loads(base64.b64decode(settings[1]))["prestart_worker_first_driver"]


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("[::1]", socket.AF_INET6)])
def test_a_process_that_accepts_no_more_connections_does_not_answer(host: str, family: int) -> None:
    with socket.socket(family) as listener:
        try:
            listener.bind((host.strip("[]"), 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        address = f"{host}:{listener.getsockname()[1]}"
        listener.listen()
        assert connection._answers(address)
    assert not connection._answers(address)


STOPPED = """
import os, signal, psutil
from tuner.errors import UserError
from tuner.ray_backend.cluster import connection

connection._SHUTDOWN_TIMEOUT = 2.0
connection.connect(None)
children = psutil.Process().children(recursive=True)
[server] = [each for each in children if each.name() == "gcs_server"]
os.kill(server.pid, signal.SIGSTOP)  # the kernel still accepts connections for it
connection.disconnect()
psutil.wait_procs(children, timeout=30)
print("left:", [each.name() for each in psutil.Process().children(recursive=True)], flush=True)
os._exit(0)
"""


@pytest.mark.slow
def test_a_ray_that_accepts_connections_and_does_not_answer_is_ended() -> None:
    process = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True, timeout=50, check=False)
    assert (process.returncode, process.stdout.strip()) == (0, "left: []"), process.stderr


def test_a_machine_that_is_too_busy_for_a_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(**options: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because ...")  # as Ray does

    monkeypatch.setattr("ray.init", late)
    with pytest.raises(UserError, match=r"Ray did not start on this machine within 30 seconds.*\n.*busy"):
        connection.connect(None)
