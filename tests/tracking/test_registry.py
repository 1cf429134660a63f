"""Winners in MLflow's registry: a real store, real models."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from registered import Registry, registry_in

from tuner.tracking.registered.registering import register
from tuner.train import checkpoint


@pytest.fixture
def registry(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    shutil.copy(empty_store, tmp_path / "store.db")
    registry = registry_in(tmp_path)
    mlflow.set_tracking_uri(registry.uri)
    mlflow.set_registry_uri(registry.uri)
    return registry


@pytest.mark.slow
def test_the_first_is_the_champion_and_can_be_loaded(registry: Registry) -> None:
    assert registry.register(0.9) == "models:/digits@champion"
    version = registry.at("champion")
    assert version.run_id == registry.run
    run = registry.client.get_run(registry.run)
    assert (run.info.status, run.info.end_time) == ("FINISHED", 1_700_000_000_000)
    model = mlflow.pytorch.load_model("models:/digits@champion")
    images = torch.rand(3, 1, 8, 8)
    _, saved = checkpoint.read_model(registry.folder / "1")
    with torch.inference_mode():
        torch.testing.assert_close(model(images), saved(images))
    [logged] = registry.client.search_logged_models([registry.experiment])
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "digits", "version": version.version}]
    assert {metric.key: metric.value for metric in logged.metrics or ()} == {"val_accuracy": 0.9, "test_accuracy": 0.5}
    curve = registry.client.get_metric_history(registry.run, "val_accuracy")
    assert [point.step for point in curve] == [1, 2, 3]  # as it was before


@pytest.mark.slow
@pytest.mark.parametrize("others", [None, "sqlite:///of-the-user.db"])
def test_what_mlflow_uses_by_default_is_as_before(
    registry: Registry, others: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI")
    if others:
        mlflow.set_tracking_uri(others)
    before = (mlflow.get_tracking_uri(), mlflow.get_registry_uri(), dict(os.environ))
    registry.register(0.9)
    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri(), dict(os.environ)) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "said", "alias"),
    [
        (0.95, {}, "champion"),
        (0.9, {}, "candidate"),  # as good is not better
        (0.8, {}, "candidate"),
        (0.99, {"dataset": "digits 2"}, "candidate"),  # other images
        (0.99, {"metric": "val_f1"}, "candidate"),
        (0.1, {"mode": "min"}, "candidate"),
    ],
)
def test_a_later_one_has_to_be_better_in_the_same(
    registry: Registry, value: float, said: dict[str, Any], alias: str
) -> None:
    registry.register(0.9)
    assert registry.register(value, **said) == f"models:/digits@{alias}"
    assert int(registry.at("champion").version) == (2 if alias == "champion" else 1)
    assert int(registry.at(alias).version) == 2


@pytest.mark.slow
def test_a_winner_that_is_registered_already_is_not_registered_again(registry: Registry) -> None:
    registry.register(0.9)
    told = {"name": "digits", "metric": "val_accuracy", "mode": "max", "value": 0.9, "dataset": "digits 1"}
    told |= {"checkpoint": registry.folder / "1", "epoch": 2, "metrics": ["val_accuracy"], "targets": []}
    for _ in range(2):  # its job went on, and it is still the winner
        assert register(registry.client, registry.uri, registry.run, told) == "models:/digits@champion"
    assert len(registry.client.search_model_versions("name = 'digits'")) == 1
    assert len(registry.client.search_logged_models([registry.experiment])) == 1
    assert register(registry.client, registry.uri, registry.run, told | {"epoch": 3}) == "models:/digits@candidate"


@pytest.mark.slow
def test_a_registry_that_is_away_has_a_champion_all_the_same(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register(0.9)

    def away(*names: str) -> None:
        raise mlflow.exceptions.RestException({"error_code": "INTERNAL_ERROR", "message": "away"})

    monkeypatch.setattr(registry.client, "get_model_version_by_alias", away)
    with pytest.raises(mlflow.exceptions.MlflowException, match="away"):
        registry.register(0.1)
    monkeypatch.undo()
    assert int(registry.at("champion").version) == 1
