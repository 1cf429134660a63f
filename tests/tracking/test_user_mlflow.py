"""Where code of the user's own logs that uses MLflow itself."""

import json
import os
from pathlib import Path

import pytest

from tuner.storage.uris import absolute
from tuner.tracking.user_mlflow import KEY, UserMlflow


@pytest.mark.parametrize(
    ("uri", "same"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{here}/mlflow.db"),
        ("sqlite:///a/b.db?timeout=3", "sqlite:///{here}/a/b.db?timeout=3"),
        ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
        ("mlruns", "{here}/mlruns"),
        ("file:mlruns", "file:{here}/mlruns"),
        ("file:///tmp/mlruns", "file:///tmp/mlruns"),
        ("http://user:secret@host:5000/x", "http://user:secret@host:5000/x"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("databricks", "databricks"),
    ],
)
def test_a_store_is_the_same_from_any_folder(
    uri: str, same: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute(uri) == same.format(here=tmp_path)
    assert absolute(absolute(uri)) == absolute(uri)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    path = tmp_path / "mlflow.db"
    path.touch()
    return path


def test_the_environment_is_each_trial_s(store: Path) -> None:
    os.environ |= {"MLFLOW_RUN_ID": "x", "MLFLOW_EXPERIMENT_NAME": "y", "MLFLOW_RUN_CONTEXT": '{"team": "vision"}'}
    user_mlflow = UserMlflow.of("sqlite:///mlflow.db", "7", "a1b2")
    for trial in (3, 4):
        user_mlflow.enter(trial)
        assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{store}"
        assert os.environ["MLFLOW_EXPERIMENT_ID"] == "7"
        assert json.loads(os.environ["MLFLOW_RUN_CONTEXT"]) == {"team": "vision", KEY: f"a1b2/{trial}"}
        assert not {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"} & os.environ.keys()


def test_nobody_is_pointed_at_a_file_that_is_not_there_or_another(store: Path) -> None:
    user_mlflow = UserMlflow.of("sqlite:///mlflow.db", "7", "a1b2")
    before = dict(os.environ)
    store.rename(store.with_name("elsewhere.db"))
    user_mlflow.enter(0)
    assert os.environ == before
    store.touch()  # of another machine, at the same path
    user_mlflow.enter(0)
    assert os.environ == before
    assert UserMlflow.of("http://127.0.0.1:5000", "7", "a1b2").is_seen
