"""Ray's session folders: where they lie, and which of them are deleted."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import eventually, start_job

from tuner.errors import UserError
from tuner.jobs.result import FAILED, OK
from tuner.ray_backend.cluster import sessions
from tuner.storage import temporary

GONE = 2**22 + 1  # no process has this id


@pytest.fixture
def root() -> Iterator[Path]:
    """A short folder: pytest's own are too long for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="s", dir="/tmp") as folder:
        yield Path(folder)


def session(root: Path, pid: int, mark: dict[str, object] | str | None = None, **changes: object) -> Path:
    """A session folder as Ray leaves it, with our mark of that process unless another is given."""
    folder = root / f"session_2026-11-26_13-41-30_998268_{pid}"
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "raylet.out").touch()
    if mark is None:
        mark = sessions._own_mark() | {"pid": pid} | changes
    if mark:
        (folder / sessions.MARK).write_text(mark if isinstance(mark, str) else json.dumps(mark))
    return folder


def link(root: Path, to: Path) -> Path:
    latest = root / "session_latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(to)
    return latest


def test_a_folder_that_is_too_long_or_not_there_is_replaced_and_that_is_said(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(temporary, "short_folders", lambda: [root / "file", root])
    (root / "file").touch()
    monkeypatch.setenv("TMPDIR", str(root))
    assert sessions.root() == (root / "ray", "")
    for name, why in (("l" * 80, "bytes, and the paths of Ray's sockets leave 4"), ("none", "none does not exist")):
        monkeypatch.setenv("TMPDIR", str(root / name))
        folder, note = sessions.root()
        assert folder == root / "ray"
        assert note.startswith("TMPDIR: ") and why in note and note.endswith(f"Ray's files go to {root}/ray")
    (root / "ray").touch()  # as one of another user is: nothing can be made in it
    assert sessions.root()[0] == root / f"ray-{os.getuid()}"
    monkeypatch.setattr(temporary, "short_folders", lambda: [root / "file"])
    with pytest.raises(UserError, match=r"TMPDIR: no folder for Ray's files.*none does not.*file is not a folder"):
        sessions.root()


def test_the_limit_is_that_of_rays_own_check(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private.utils import validate_socket_filepath

    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(temporary, "short_folders", lambda: [])
    lengths = set()
    for length in range(20, 60):
        folder = root / ("x" * (length - len(f"{root}//ray")))
        folder.mkdir()
        monkeypatch.setenv("TMPDIR", str(folder))
        plasma = f"{folder}/ray/{sessions._NAME}{os.getpid()}/{sessions._SOCKET}"
        try:
            assert sessions.root() == (folder / "ray", "")
            validate_socket_filepath(plasma)
            lengths.add(True)
        except UserError:
            with pytest.raises(OSError, match="AF_UNIX"):
                validate_socket_filepath(plasma)
            lengths.add(False)
    assert lengths == {True, False}


def test_temporary_files_go_elsewhere_and_that_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(root / "none"))
    assert temporary.check() == f"TMPDIR: {root}/none does not exist: temporary files go to {tempfile.gettempdir()}"
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(root))
    assert temporary.check() == ""
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(root / "none")])
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(UserError, match="no folder for temporary files can be written"):
        temporary.check()


def test_only_what_killed_drivers_of_ours_left_is_cleared_up(root: Path) -> None:
    left = session(root, GONE)
    newer = session(root, os.getppid(), started=1.0)  # another process has that id now
    stay = [
        session(root, os.getpid()),  # its driver lives
        session(root, GONE + 1, mark=""),  # not ours
        session(root, GONE + 2, mark="{"),
        session(root, GONE + 3, mark="[1]"),
        session(root, GONE + 4, mark={"pid": GONE + 4}),
        session(root, GONE + 5, host="elsewhere"),
        session(root, GONE + 6, user=os.getuid() + 1),
        session(root, GONE + 7, processes="pid:[1]"),  # a container's
    ]
    latest = link(root, stay[0])
    sessions.clear_up(root)
    assert not left.exists() and not newer.exists()
    assert all((folder / "logs" / "raylet.out").exists() for folder in stay)
    assert latest.readlink() == stay[0]
    link(root, root / "session_none")  # dangling, and not ours
    sessions.clear_up(root)
    assert latest.is_symlink()


@pytest.mark.parametrize("how", ["command", "folder", "file"])
def test_a_session_that_a_process_still_uses_stays(root: Path, how: str) -> None:
    left = session(root, GONE)
    link(root, left)
    program = {"command": "", "folder": f"os.chdir({str(left)!r})", "file": f"f = open({str(left / 'logs/x')!r}, 'w')"}
    arguments = [str(left / "sockets")] if how == "command" else []
    # What is to be run comes in a pipe: else each of them would name the session.
    user = subprocess.Popen(
        [sys.executable, "-c", "import os; exec(input()); print(flush=True); input()", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert user.stdin and user.stdout
        user.stdin.write(f"{program[how]}\n")
        user.stdin.flush()
        user.stdout.readline()
        sessions.clear_up(root)
        assert (left / "logs" / "raylet.out").exists()
        user.communicate("\n", timeout=20)
    finally:
        user.kill()
        user.wait()
    sessions.clear_up(root)
    assert list(root.iterdir()) == []  # the link to it is gone, too


@pytest.mark.parametrize("name", ["working_dirs", "driver_artifacts"])
def test_what_trials_wrote_to_the_folders_that_ray_gives_them_stays(root: Path, name: str) -> None:
    own = session(root, os.getpid())
    work = own / "artifacts" / "2026-11-26" / "job" / name
    (work / "trial-0000" / "empty").mkdir(parents=True)
    assert sessions.remove(own) == "" and not own.exists()
    own = session(root, os.getpid())
    (work / "trial-0000").mkdir(parents=True)
    (work / "trial-0000" / "mine.txt").touch()
    assert sessions.remove(own) == str(work.parent)
    assert [entry.name for entry in own.iterdir()] == ["artifacts"] and (work / "trial-0000" / "mine.txt").exists()
    assert sessions.remove(own) == "" and work.exists()  # nobody comes back to it


def test_what_is_kept_stays(root: Path) -> None:
    own = session(root, os.getpid())
    assert sessions.keep(own) == own / "logs"
    sessions.remove(own)
    assert (own / "logs" / "raylet.out").exists()


def test_a_start_that_breaks_off_is_marked(root: Path) -> None:
    with pytest.raises(KeyboardInterrupt), sessions.marking(root):
        made = session(root, os.getpid(), mark="")
        raise KeyboardInterrupt
    assert json.loads((made / sessions.MARK).read_text()) == sessions._own_mark()


FUNCTION = """
import multiprocessing, os, signal, time
from ray import tune

def train(config):
    with multiprocessing.Manager() as manager:  # its sockets are below TMPDIR
        assert manager.dict(a=1)["a"] == 1
    if config["kill"]:
        os.kill(os.getpid(), signal.SIGKILL)
    for step in range(config["steps"]):
        tune.report({"loss": config["x"]})
        time.sleep(0.1)
"""
JOB = """
name: job
objective: {metric: loss, mode: min}
trial: {target: "function:train", config: {steps: 1, kill: false, x: 0.0}}
space: {config.x: {grid: [1.0]}}
search: {kind: grid}
retry: {lost: 0}
"""


@pytest.mark.slow
@pytest.mark.usefixtures("store_made")
def test_jobs_leave_no_sessions_but_what_is_needed(root: Path, tmp_path: Path) -> None:
    long = tmp_path / ("l" * 80)
    long.mkdir()
    (tmp_path / "function.py").write_text(FUNCTION)
    (tmp_path / "job.yaml").write_text(JOB)
    environment = {"TMPDIR": str(long), "RAY_TMPDIR": str(root)}
    there = root / "ray"
    killed = start_job(tmp_path, "job.yaml", "trial.config.steps=10000", **environment)
    try:
        assert eventually(lambda: any(there.glob("session_2*/logs/worker-*")), 300)
        assert eventually(lambda: any(there.glob(f"session_2*/{sessions.MARK}")), 300)
        [left] = there.glob("session_2*")
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    assert left.exists()
    for process in psutil.process_iter():  # Ray's agents look for their driver once a minute
        if sessions._uses(process, left.name):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    assert eventually(lambda: not sessions._is_used(left), 300)
    job = start_job(tmp_path, "job.yaml", **environment)
    try:
        output, _ = job.communicate(timeout=600)
    finally:
        job.kill()
    assert job.returncode == OK, output
    assert list(there.iterdir()) == []
    job = start_job(tmp_path, "job.yaml", "trial.config.kill=true", **environment)
    try:
        output, _ = job.communicate(timeout=600)
    finally:
        job.kill()
    assert job.returncode == FAILED, output
    [kept] = there.glob("session_2*")
    assert f"a worker was lost: Ray's logs of this job are kept in {kept}/logs\n" in output
    assert any((kept / "logs").glob("raylet*")) and not (kept / sessions.MARK).exists()
    shutil.rmtree(kept)
