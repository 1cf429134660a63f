"""A project that was moved or copied has its artifacts where it is, and leaves the original's alone."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tuner.tracking.relocation import relocate


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


def test_a_link_to_a_project_is_no_other_place(project: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(project)
    before = (project / "mlflow.db").read_bytes()
    assert relocate(f"sqlite:///{link}/mlflow.db") == ""
    assert (project / "mlflow.db").read_bytes() == before


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


def test_a_copy_without_artifacts_does_not_write_into_the_original(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(project / "mlflow.db", other / "mlflow.db")
    store = f"sqlite:///{other}/mlflow.db"
    assert relocate(store) == ""  # to look at it changes nothing
    assert f"{project}/mlruns" in relocate(store, to_write=True)
    assert note_of(other).is_relative_to(other)
    assert relocate(store, to_write=True) == ""
    assert relocate(f"sqlite:///{project}/mlflow.db", to_write=True) == ""


def test_one_that_was_moved_without_artifacts_does_not_make_its_old_place_anew(project: Path, tmp_path: Path) -> None:
    shutil.rmtree(project / "mlruns")
    moved = project.rename(tmp_path / "moved")
    assert relocate(f"sqlite:///{moved}/mlflow.db", to_write=True)
    assert note_of(moved).is_relative_to(moved)


def test_artifacts_in_a_folder_of_no_other_store_stay_there(project: Path, tmp_path: Path) -> None:
    """MLflow makes them in the working directory, wherever the store is."""
    (tmp_path / "stores").mkdir()
    store = (project / "mlflow.db").rename(tmp_path / "stores" / "mlflow.db")
    assert relocate(f"sqlite:///{store}", to_write=True) == ""
