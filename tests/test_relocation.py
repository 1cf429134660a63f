"""A project that was moved or copied has its artifacts where it is, and leaves the original's alone."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tuner.relocation import relocate


@pytest.fixture
def project(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store of MLflow's, and one run with an artifact in it."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    run = client.create_run(client.create_experiment("x"))
    client.log_text(run.info.run_id, "ours", "note.txt")
    return folder


def note_of(folder: Path) -> Path:
    """Where the artifact of the run is. MLflow's own client keeps in mind where it was, run by run."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name("x").experiment_id])
    return Path(run.info.artifact_uri) / "note.txt"


def test_what_was_moved_is_found(project: Path, tmp_path: Path) -> None:
    moved = project.rename(tmp_path / "moved")
    assert f"{moved}/mlruns" in relocate(f"sqlite:///{moved}/mlflow.db")
    assert note_of(moved).read_text() == "ours"
    assert relocate(f"sqlite:///{moved}/mlflow.db") == ""  # once


def test_a_copy_leaves_the_original_alone(project: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(project, tmp_path / "copy")
    assert relocate(f"sqlite:///{copy}/mlflow.db")
    note_of(copy).write_text("theirs")
    assert (note_of(project).read_text(), note_of(copy).read_text()) == ("ours", "theirs")
    client = MlflowClient(f"sqlite:///{copy}/mlflow.db")
    other = client.create_run(client.get_experiment_by_name("x").experiment_id)
    assert other.info.artifact_uri.startswith(str(copy))
    assert relocate(f"sqlite:///{project}/mlflow.db") == ""


def test_a_folder_of_another_store_is_none_of_ours(project: Path, tmp_path: Path) -> None:
    """The store was copied without its artifacts, to where another store has its own."""
    other = tmp_path / "other"
    (other / "mlruns" / "1" / "somebody").mkdir(parents=True)
    shutil.copy(project / "mlflow.db", other / "mlflow.db")
    assert relocate(f"sqlite:///{other}/mlflow.db") == ""


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "sqlite:///none.db", "mlruns"])
def test_other_stores_are_left_as_they_are(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert relocate(uri) == ""
    assert list(tmp_path.iterdir()) == []
