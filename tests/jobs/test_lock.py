"""A job's folder belongs to one driver at a time."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tuner.errors import UserError
from tuner.jobs.lock import alone_in


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


HOLD = """
import sys
from tuner.jobs.lock import alone_in
with alone_in(sys.argv[1]):
    print("there", flush=True)
    input()
"""


@pytest.mark.parametrize("storage", ["", "s3://bucket"])
def test_another_driver_is_refused_as_long_as_the_first_one_lives(
    storage: str, tmp_path: Path, temporary: Path
) -> None:
    folder = f"{storage}{tmp_path}/name/job"
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
        assert not list(temporary.iterdir())
    finally:
        first.kill()
        first.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["", "s3://bucket"])
def test_a_killed_driver_is_succeeded_only_when_its_writer_has_ended(storage: str, tmp_path: Path) -> None:
    folder = f"{storage}{tmp_path}/job"
    writer = [sys.executable, "-c", "import time; time.sleep(1); print('written', flush=True)"]
    starts = f"""
import subprocess
from tuner.jobs.lock import alone_in
with alone_in({folder!r}) as lock:
    subprocess.Popen({writer!r}, pass_fds=[lock])
    print("there", flush=True)
    input()
"""
    driver = subprocess.Popen([sys.executable, "-c", starts], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None and driver.stdout.readline() == "there\n"
        driver.kill()
        driver.wait()
        with alone_in(folder):
            assert driver.stdout.readline() == "written\n"
    finally:
        driver.kill()
        driver.communicate()


def test_a_folder_that_is_named_by_a_uri_is_the_same_folder(tmp_path: Path) -> None:
    again = pytest.raises(UserError, match="the job is still running")
    with alone_in(str(tmp_path / "job")), again, alone_in(f"file://{tmp_path}/job"):
        pass


def test_a_job_that_came_to_nothing_leaves_no_folder(tmp_path: Path, temporary: Path) -> None:
    with alone_in(str(tmp_path / "name" / "job")):
        assert (tmp_path / "name" / "job").is_dir()
    assert list(tmp_path.iterdir()) == [temporary]
    for job in ("one", "other"):
        with pytest.raises(KeyboardInterrupt), alone_in(str(tmp_path / "name" / job)):
            if job == "one":
                (tmp_path / "name" / job / "journal.jsonl").touch()
            raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "name").iterdir()] == ["one"]
