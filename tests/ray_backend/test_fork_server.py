"""Workers of a Ray on this host: forked from one process, and otherwise as Ray starts them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import eventually

from tuner.ray_backend.fork_server import server, setup_worker, starting

WORKER = ["/ray/default_worker.py", "--worker-id=1"]


def context(**parts: Any) -> list[str]:
    whole = {"command_prefix": [], "env_vars": {}, "py_executable": sys.executable, "java_jars": []} | parts
    return [*WORKER, f"--serialized-runtime-env-context={json.dumps(whole)}", "--language=PYTHON"]


def test_a_worker_is_asked_for_with_all_that_a_process_inherits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(setup_worker.ADDRESS, "/somewhere")
    monkeypatch.setenv("ODD", os.fsdecode(b"\xff"))
    wanted = setup_worker.request(context(env_vars={"A": "${HOME}"}))
    assert wanted is not None
    wanted = json.loads(json.dumps(wanted))
    assert wanted["arguments"] == WORKER
    assert wanted["variables"] == {"A": "${HOME}"}
    assert wanted["folder"] == str(Path.cwd())
    assert wanted["path"] == sys.path[1:]
    assert os.fsencode(wanted["environment"]["ODD"]) == b"\xff"
    assert setup_worker.ADDRESS not in wanted["environment"]
    assert setup_worker.request(WORKER) is not None  # a Ray without runtime environments


@pytest.mark.parametrize(
    "parts",
    [
        {"command_prefix": ["nsys", "profile"]},
        {"py_executable": "/elsewhere/python"},
        {"override_worker_entrypoint": "/elsewhere/default_worker.py"},
        {"env_vars": {"LD_PRELOAD": "/lib/some.so"}},
        {"env_vars": {"PYTHONPATH": "/elsewhere"}},
    ],
    ids=lambda parts: next(iter(parts)),
)
def test_what_a_fork_cannot_be_is_started_by_rays_own_script(parts: dict[str, Any]) -> None:
    assert setup_worker.request(context(**parts)) is None


def test_a_server_that_does_not_answer_is_done_without(tmp_path: Path) -> None:
    assert not setup_worker.ask(str(tmp_path / "none"), {})


def fork_server() -> psutil.Process:
    [found] = [each for each in psutil.Process().children() if server.__name__ in each.cmdline()]
    return found


@pytest.mark.usefixtures("started_ray")
def test_workers_are_forked_and_share_nothing_that_processes_do_not_share() -> None:
    import ray

    def about_worker(*_: Any) -> dict[str, Any]:
        time.sleep(1)  # long enough for each call to get a worker of its own
        return {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "group": os.getpgid(0),
            "server": os.environ.get(setup_worker.ADDRESS),
            "variable": os.environ.get("VARIABLE"),
            "random": random.random(),
            "numpy": float(np.random.random()),
            "child": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
            "node": int(os.environ["RAY_RAYLET_PID"]),
            "imported": "tuner.ray_backend.worker.trainable" in sys.modules,
        }

    remote = ray.remote(num_cpus=0)(about_worker).options(runtime_env={"env_vars": {"VARIABLE": "value"}})
    first, second = ray.get([remote.remote(1), remote.remote(2)])
    assert first["pid"] != second["pid"]
    for worker in first, second:
        assert worker["parent"] == fork_server().pid
        assert worker["group"] == worker["pid"]  # Ray ends the processes of this group with the worker
        assert worker["server"] is None
        assert worker["variable"] == "value"
        assert worker["child"]
        assert psutil.Process(worker["node"]).name() == "raylet"  # by whose end a worker knows that its node has ended
        assert worker["imported"]
    assert first["random"] != second["random"]
    assert first["numpy"] != second["numpy"]


PROGRAM = """
import os, signal, sys, psutil, ray
from tuner.ray_backend.cluster import connection
from tuner.ray_backend.fork_server import server

connection.connect(None)
[found] = [each for each in psutil.Process().children() if server.__name__ in each.cmdline()]
if sys.argv[1] != "driver":
    if sys.argv[1] == "server":
        found.kill()
        found.wait()
    variable = "RAY_VARIABLE" if sys.argv[1] == "variable" else "VARIABLE"
    remote = ray.remote(num_cpus=0)(lambda: os.getppid()).options(runtime_env={"env_vars": {variable: "value"}})
    print("forked:", ray.get(remote.remote()) == found.pid)
    connection.disconnect()
    print("ended:", not found.is_running())
else:
    print("server:", found.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run(what: str, folder: Path) -> str:
    command = [sys.executable, "-P", "-c", PROGRAM, what]  # as our command, which does not look for modules in a folder
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120).stdout


@pytest.mark.slow
def test_without_the_server_ray_starts_its_workers(tmp_path: Path) -> None:
    assert run("server", tmp_path) == "forked: False\nended: True\n"


AHEAD = """
import os, psutil, ray
from tuner.ray_backend.cluster import connection
from tuner.ray_backend.fork_server import starting

os.cpu_count = lambda: 2
with starting.started_ahead():
    [found] = psutil.Process().children()
    connection.connect(None)
print("goes on:", found.is_running())
remote = ray.remote(num_cpus=0)(lambda: os.getppid()).options(runtime_env={"env_vars": {"VARIABLE": "value"}})
print("forked:", ray.get(remote.remote()) == found.pid)
connection.disconnect()
print("ended:", not found.is_running())
"""


@pytest.mark.slow
def test_ray_takes_the_server_that_was_started_ahead(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", AHEAD]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == "goes on: True\nforked: True\nended: True\n", done.stderr


def test_a_single_core_gets_no_server_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    before = {each.pid for each in psutil.Process().children()}
    with starting.started_ahead():
        assert {each.pid for each in psutil.Process().children()} == before


def test_a_server_that_no_ray_takes_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    others = {each.pid for each in psutil.Process().children()}
    with starting.started_ahead():
        [started] = [each for each in psutil.Process().children() if each.pid not in others]
        assert started.is_running()
    assert not started.is_running()


@pytest.mark.slow
def test_a_worker_with_variables_that_ray_has_read_otherwise_is_no_fork(tmp_path: Path) -> None:
    assert run("variable", tmp_path) == "forked: False\nended: True\n"


@pytest.mark.slow
def test_modules_of_the_user_do_not_take_the_place_of_libraries(tmp_path: Path) -> None:
    (tmp_path / "jsonschema.py").write_text("raise SystemExit")
    assert run("nothing", tmp_path) == "forked: True\nended: True\n"


@pytest.mark.slow
def test_the_server_ends_with_the_driver(tmp_path: Path) -> None:
    pid = int(run("driver", tmp_path).removeprefix("server: "))
    assert eventually(lambda: not psutil.pid_exists(pid))
