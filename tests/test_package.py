"""What of an experiment's folder travels to a cluster."""

import subprocess
from pathlib import Path
from zipfile import ZipFile

import pytest

from tuner.errors import UserError
from tuner.jobs import package
from tuner.jobs.package import package_of


def files(folder: Path, **said: str) -> Path:
    """Files by their path, ``__`` for a slash and ``DOT`` for a leading dot; returns the experiment's."""
    for name, text in ({"job_yaml": "name: x"} | said).items():
        path = folder / name.replace("__", "/").replace("DOT", ".").replace("_yaml", ".yaml").replace("_py", ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "job.yaml"


@pytest.fixture(params=["in a repository", "in none"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "in a repository":
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def test_what_git_ignores_stays_here(folder: Path) -> None:
    job = files(
        folder,
        DOTgitignore="*.secret\n/data/\n!kept.secret\n",
        data__x="images",
        a__b_py="1",
        **{"a.secret": "s", "kept.secret": "k", "a__DOTgitignore": "only_here\n", "a__only_here": "x"},
    )
    assert package_of(job).files == (".gitignore", "a/.gitignore", "a/b.py", "job.yaml", "kept.secret")


def test_what_no_experiment_needs_stays_here_unasked(folder: Path) -> None:
    job = files(
        folder,
        runs__a="x",
        DOTenv="TOKEN=1",
        DOTray__auth_token="x",
        DOTvenv__x="x",
        **{"mlflow.db": "x", "a____pycache__": "x"},
    )
    assert "job.yaml" in package_of(job).files
    assert not {"runs/a", ".env", ".ray/auth_token", ".venv/x", "mlflow.db"} & set(package_of(job).files)


def test_a_rayignore_leaves_out_what_git_knows(folder: Path) -> None:
    job = files(folder, DOTrayignore="weights.bin\n", **{"weights.bin": "x"})
    assert "weights.bin" not in package_of(job).files


def test_a_link_to_a_folder_is_not_followed_and_that_is_said(folder: Path) -> None:
    job = files(folder)
    (folder / "data").symlink_to("/usr")
    found = package_of(job)
    assert found.files == ("job.yaml",) and found.left_out == ("data",)
    assert "without data (a link to a folder)" in str(found)


def test_the_same_files_make_the_same_package(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    job, there = files(folder, a_py="1"), tmp_path_factory.mktemp("zip")
    for name in ("one", "other"):
        package_of(job).write(there / name)
    assert (there / "one").read_bytes() == (there / "other").read_bytes()
    assert ZipFile(there / "one").namelist() == ["a.py", "job.yaml"]


def test_more_than_ray_takes_is_not_shipped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "MOST", 1000)
    job = files(folder, big__a="x" * 900, big__b="x" * 900, small="x")
    with pytest.raises(UserError, match=r"1\.81 KB would travel, and Ray takes 1 KB; largest: big 1\.8 KB") as raised:
        package_of(job)
    assert ".rayignore" in str(raised.value)
