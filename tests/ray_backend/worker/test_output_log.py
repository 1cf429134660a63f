"""What trials print: in a file of each, bounded, wherever it is stored, and shown by ``tuner logs``."""

import ctypes
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import tuner
from mlflow import MlflowClient
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from tuner.cli.app import main
from tuner.ray_backend.worker.output_log import KEPT, OutputLog
from tuner.trials import output_files

FUNCTION = """
import os
import subprocess
from pathlib import Path

from ray import tune


def prints(config):
    how = config["how"]
    print("begun", how)
    subprocess.run(["echo", "a process of its own"])
    tune.report({"loss": 1})
    if how == "raises":
        raise ValueError("what went wrong")
    if how == "dies once" and not Path(config["mark"]).exists():
        Path(config["mark"]).touch()
        os.abort()
    print("ended", how)
"""

WAYS = ["prints", "raises", "dies once"]


def folder_of(tmp_path: Path) -> Path:
    return tmp_path / "job" / "trial-0000"


def local(tmp_path: Path) -> OutputLog:
    return OutputLog(LocalFileSystem(), str(folder_of(tmp_path) / output_files.FILE))


def elsewhere(tmp_path: Path) -> OutputLog:
    """On a storage that is not this machine's disk, as far as one can tell."""
    folder_of(tmp_path).mkdir(parents=True, exist_ok=True)
    return OutputLog(SubTreeFileSystem(str(tmp_path), LocalFileSystem()), "job/trial-0000/output.log")


BOTH = pytest.mark.parametrize("of", [local, elsewhere])


def written(tmp_path: Path) -> bytes:
    return (folder_of(tmp_path) / output_files.FILE).read_bytes()


@BOTH
def test_whatever_writes_to_the_output_is_written_down(tmp_path: Path, of: Any) -> None:
    logger = logging.Logger("of a test")
    logger.addHandler(logging.StreamHandler(open(2, "w", closefd=False)))  # bound before  # noqa: SIM115
    before = sys.stdout, sys.stderr
    with of(tmp_path):
        print("printed ü")
        sys.stderr.write("an error\n")
        logger.warning("logged")
        ctypes.CDLL(None).puts(b"from C")
        subprocess.run("echo of a process; echo of its errors >&2", shell=True, check=True)
    assert (sys.stdout, sys.stderr) == before
    lines = written(tmp_path).decode().splitlines()
    assert sorted(lines) == sorted(["printed ü", "an error", "logged", "from C", "of a process", "of its errors"])


@BOTH
def test_it_goes_on_where_the_trial_does(tmp_path: Path, of: Any) -> None:
    for part in ("first", "second"):
        with of(tmp_path):
            print(part)
    found = re.fullmatch(r"first\n\[tuner: continued at .* UTC on .*\]\nsecond\n", written(tmp_path).decode())
    assert found, written(tmp_path)


@BOTH
def test_its_beginning_and_its_end_are_kept(tmp_path: Path, of: Any) -> None:
    line = "x" * 99 + "\n"
    for part in ("one", "two"):
        with of(tmp_path):
            print("begun", part)
            os.write(1, (line * (5 * KEPT // 100)).encode())
            print("ended", part)
    text = written(tmp_path).decode()
    assert 2 * KEPT - 200 < len(text) < 2 * KEPT + 200
    assert text.startswith("begun one\n") and text.endswith("ended two\n")
    (cut,) = re.findall(r"\[tuner: (\d+) bytes were cut here\]\n", text)
    assert int(cut) + len(text) == pytest.approx(10 * KEPT, abs=1000)


@BOTH
def test_who_prints_nothing_leaves_nothing(tmp_path: Path, of: Any) -> None:
    with of(tmp_path):
        pass
    assert not (folder_of(tmp_path) / output_files.FILE).exists()


def test_a_disk_that_is_full_fails_nothing(tmp_path: Path) -> None:
    with OutputLog(LocalFileSystem(), "/dev/full"):
        print("to nobody")
        sys.stderr.write("nor this\n")
    with OutputLog(LocalFileSystem(), "/proc/not/a/folder/output.log"):
        print("as before")


def test_its_place_is_the_same_however_often_the_trial_began(tmp_path: Path) -> None:
    assert (
        output_files.output_path("s3://bucket/job?scheme=http", 7)
        == "s3://bucket/job/trial-0007/output.log?scheme=http"
    )


@pytest.fixture(scope="module")
def job(one_ray: None, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A job's folder, and what was on its screen."""
    folder = tmp_path_factory.mktemp("output")
    (folder / "own_prints.py").write_text(FUNCTION)
    (folder / "prints.yaml").write_text(f"""
name: prints
objective: {{metric: loss, mode: min}}
trial: {{target: "own_prints:prints", config: {{how: prints, mark: {folder / "mark"}}}}}
space: {{config.how: {{grid: {WAYS}}}}}
search: {{kind: grid}}
""")
    store = f"sqlite:///{folder}/mlflow.db"
    shutil.copy(empty_store, folder / "mlflow.db")
    _, text = tuner(folder, "run", "prints.yaml", f"tracking.uri={store}", "tracking.output=all", COLUMNS="300")
    (job,) = (folder / "runs" / "prints").iterdir()
    yield job, text


@pytest.mark.slow
def test_each_trial_has_one(job: tuple[Path, str]) -> None:
    folder, text = job
    logs = {way: (folder / f"trial-000{number}" / "output.log").read_text() for number, way in enumerate(WAYS)}
    assert logs["prints"] == "begun prints\na process of its own\nended prints\n", text
    assert "begun raises" in logs["raises"] and logs["raises"].endswith("ValueError: what went wrong\n")
    died = logs["dies once"]
    assert died.count("begun dies once") == 2 and "[tuner: continued at" in died
    assert died.endswith("ended dies once\n")


@pytest.mark.slow
def test_a_failure_says_where_it_is(job: tuple[Path, str]) -> None:
    folder, text = job
    place = f"runs/prints/{folder.name}/trial-0001/output.log"
    assert text.count(f"· output: {place}") == 1 and text.count(f"its output: {place}") == 1


@pytest.mark.slow
def test_it_is_an_artifact_where_that_is_asked_for(job: tuple[Path, str]) -> None:
    folder, _ = job
    client = MlflowClient(f"sqlite:///{folder.parents[2]}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'prints'")
    runs = {run.data.tags.get("tuner.trial"): run for run in client.search_runs([experiment.experiment_id])}
    for number in range(len(WAYS)):
        there = client.download_artifacts(runs[str(number)].info.run_id, output_files.FILE)
        assert Path(there).read_text() == (folder / f"trial-000{number}" / "output.log").read_text()


@pytest.mark.slow
def test_a_command_shows_it(
    job: tuple[Path, str], capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = job
    uri = f"--uri=sqlite:///{folder.parents[2]}/mlflow.db"

    def logs(*arguments: str) -> tuple[int, bytes, bytes]:
        with pytest.raises(SystemExit) as left:
            main(["logs", *arguments, uri])
        return (int(left.value.code or 0), *capfdbinary.readouterr())

    (written,) = (folder / "trial-0001").glob("output.log")
    assert logs("prints", "1") == (0, written.read_bytes(), b"")
    assert logs(folder.name, "1", "--follow") == (0, written.read_bytes(), b"")
    status, _, told = logs("prints", "9")
    assert status == 2 and b"has no trial 9" in told and b"trials 0 to 2" in told
    elsewhere = folder.with_name("moved")
    folder.rename(elsewhere)
    try:
        status, printed, _ = logs("prints", "1")
        assert printed == (elsewhere / "trial-0001" / "output.log").read_bytes()  # from the record
    finally:
        elsewhere.rename(folder)
