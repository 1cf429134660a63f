"""What of an experiment's folder travels to a cluster."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tuner import user_code
from tuner.ray_backend.cluster import working_dir
from tuner.ray_backend.cluster.working_dir import package_of


@pytest.fixture(autouse=True)
def nothing_stays_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test begins with no folder, in a folder of its own."""
    monkeypatch.setattr(user_code, "_folders", [])
    monkeypatch.setattr(user_code, "_last_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)


def files(folder: Path, **said: str) -> Path:
    """Files by their path, ``__`` for a slash and ``DOT`` for a leading dot; returns the folder."""
    for name, text in ({"job_yaml": "name: x"} | said).items():
        path = folder / name.replace("__", "/").replace("DOT", ".").replace("_yaml", ".yaml").replace("_py", ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def names(folder: Path) -> list[str]:
    """What travels of a folder, by the paths in it."""
    package = package_of(folder, [])
    return sorted(str(file.relative_to(folder)) for file in package.files.values())


@pytest.fixture(params=["in a repository", "below its top", "in none"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "above" / "folder"
    folder.mkdir(parents=True)
    if request.param != "in none":
        top = folder if request.param == "in a repository" else folder.parent
        subprocess.run(["git", "init", "-q", str(top)], check=True)
    return folder


def test_what_git_ignores_stays_here(folder: Path) -> None:
    files(
        folder,
        DOTgitignore="*.secret\n/data/\n!kept.secret\n",
        data__x="images",
        a__b_py="1",
        **{"a.secret": "s", "kept.secret": "k", "a__DOTgitignore": "only_here\n", "a__only_here": "x"},
    )
    assert names(folder) == [".gitignore", "a/.gitignore", "a/b.py", "job.yaml", "kept.secret"]


def test_what_the_repository_around_it_ignores_stays_here(tmp_path: Path) -> None:
    folder = files(tmp_path / "top" / "a" / "b", secret="s", large__x="x", kept="k")
    subprocess.run(["git", "init", "-q", str(tmp_path / "top")], check=True)
    (tmp_path / ".gitignore").write_text("kept\n")  # of no repository of its
    (tmp_path / "top" / ".gitignore").write_text("secret\n")
    (tmp_path / "top" / ".git" / "info" / "exclude").write_text("large/\n")
    assert names(folder) == ["job.yaml", "kept"]


def test_what_no_experiment_needs_stays_here_unasked(folder: Path) -> None:
    files(
        folder,
        runs__a="x",
        DOTenv="TOKEN=1",
        DOTray__auth_token="x",
        DOTvenv__x="x",
        **{"mlflow.db": "x"},
    )
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").touch()
    assert names(folder) == ["job.yaml"]


def test_a_rayignore_leaves_out_what_git_knows(folder: Path) -> None:
    files(folder, DOTrayignore="weights.bin\n", **{"weights.bin": "x"})
    assert names(folder) == [".rayignore", "job.yaml"]


def test_a_link_to_a_folder_is_not_followed_and_that_is_said(folder: Path) -> None:
    files(folder)
    (folder / "data").symlink_to("/usr")
    found = package_of(folder, [])
    assert list(found.files.values()) == [folder / "job.yaml"] and found.left_out == ("data",)
    assert "without data (a link to a folder, or not readable)" in str(found)


def test_the_same_files_make_the_same_package(folder: Path, tmp_path: Path) -> None:
    files(folder, a_py="1")
    for name in ("one", "other"):
        package_of(folder, []).write(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert ZipFile(tmp_path / "one").namelist() == ["above/folder/a.py", "above/folder/job.yaml"]


def test_more_than_ray_takes_is_told_with_what_is_largest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working_dir, "MOST", 1000)
    files(folder, big__a="x" * 900, big__b="x" * 900, small="x")
    why = package_of(folder, []).too_large()
    assert why == "1.81 KB would travel, and Ray takes 1 KB; largest: big 1.8 KB, job.yaml 7 bytes, small 1 bytes"


class TestModulesElsewhere:
    """What code imports that does not lie in the folder."""

    def test_a_package_where_the_command_is_typed_travels_whole(self, tmp_path: Path) -> None:
        folder = files(tmp_path / "folder", own_w_py="import lib_w.deep\ndef train(config): ...\n")
        files(tmp_path / "lib_w", deep_py="import single_w\n", words="w", DOTgitignore="job.yaml\n")
        (tmp_path / "single_w.py").touch()
        (tmp_path / "another.py").touch()
        user_code.add_folder(folder, tmp_path)
        package = package_of(folder, ["own_w:train"])
        whole = ["folder/job.yaml", "folder/own_w.py"]
        whole += ["lib_w/.gitignore", "lib_w/deep.py", "lib_w/words", "single_w.py"]
        assert (sorted(package.files), package.root, package.missing) == (whole, tmp_path, ())
        assert f"6 files of {folder} and lib_w, single_w.py of {tmp_path}" in str(package)

    def test_what_lies_elsewhere_or_is_ignored_is_missing(self, tmp_path: Path) -> None:
        folder = files(tmp_path / "folder", own_x_py="import away_x, ignored_x\n", DOTgitignore="ignored_*\n")
        (folder / "ignored_x.py").touch()
        (tmp_path / "away").mkdir()
        (tmp_path / "away" / "away_x.py").write_text("def train(config): ...\n")
        sys.path.append(str(tmp_path / "away"))
        (tmp_path / "here").mkdir()
        user_code.add_folder(folder, tmp_path / "here")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path / "here")
            package = package_of(folder, ["own_x:away_x", "away_x:train"])
        assert package.missing == (tmp_path / "away" / "away_x.py", folder / "ignored_x.py")
        assert package.root == tmp_path
