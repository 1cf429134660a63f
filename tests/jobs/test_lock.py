"""A job's folder belongs to one driver at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from tuner.errors import UserError
from tuner.jobs.lock import alone_in

HOLD = """
import sys
from tuner.jobs.lock import alone_in
with alone_in(sys.argv[1]):
    print("there", flush=True)
    input()
"""


def test_another_driver_is_refused_as_long_as_the_first_one_lives(tmp_path: Path) -> None:
    folder = str(tmp_path / "name" / "job")
    command = [sys.executable, "-c", HOLD, folder]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None and first.stdout.readline() == "there\n"
        with pytest.raises(UserError, match="the job is still running"), alone_in(folder):
            pass
        first.kill()
        first.wait()
        with alone_in(folder):
            pass
    finally:
        first.kill()
        first.communicate()


def test_a_folder_that_is_named_by_a_uri_is_the_same_folder(tmp_path: Path) -> None:
    with alone_in(str(tmp_path / "job")) as lock:
        assert lock is not None
        with pytest.raises(UserError, match="the job is still running"), alone_in(f"file://{tmp_path}/job"):
            pass


def test_a_job_that_came_to_nothing_leaves_no_folder(tmp_path: Path) -> None:
    with alone_in(str(tmp_path / "name" / "job")):
        assert (tmp_path / "name" / "job").is_dir()
    assert list(tmp_path.iterdir()) == []
    for job in ("one", "other"):
        with pytest.raises(KeyboardInterrupt), alone_in(str(tmp_path / "name" / job)):
            if job == "one":
                (tmp_path / "name" / job / "journal.jsonl").touch()
            raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "name").iterdir()] == ["one"]
