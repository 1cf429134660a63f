"""Winners in MLflow's registry: a real store, real models."""

import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from torch import Tensor, nn

from tuner.tracking.registry import register
from tuner.train import checkpoint
from tuner.train.trial_config import TrialConfig

MULTITASK: dict[str, Any] = {
    "task": {"kind": "multitask"},
    "data": {"kind": "digits", "canvas": 40},
    "model": {"kind": "multitask_cnn"},
}


class Registry:
    """A store with one run, and winners that are registered there."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.folder, self.count = uri, folder, 0
        self.client = MlflowClient(uri, registry_uri=uri)
        self.experiment = self.client.create_experiment("digits")

    def register(self, value: float, trial: dict[str, Any] | None = None, **said: Any) -> str:
        config = TrialConfig.model_validate(trial or {"data": {"kind": "digits"}, "model": {"kind": "cnn"}})
        self.count += 1
        place = self.folder / str(self.count)
        place.mkdir()
        checkpoint.Save(config, config.build_model().state_dict(), {}, {})(place)
        self.run = self.client.create_run(self.experiment).info.run_id
        for name, number in (("val_accuracy", value), ("test_accuracy", 0.5)):
            for epoch in (1, 2, 3):
                self.client.log_metric(self.run, name, number - abs(epoch - 2) / 10, step=epoch)
        self.client.set_terminated(self.run, "FINISHED", end_time=1_700_000_000_000)
        told = {"name": "digits", "metric": "val_accuracy", "mode": "max", "value": value, "dataset": "digits 1"}
        told |= {"checkpoint": place, "epoch": 2, "metrics": ["val_accuracy", "test_accuracy"], "targets": []} | said
        return register(self.client, self.uri, self.run, told)

    def at(self, alias: str) -> ModelVersion:
        return self.client.get_model_version_by_alias("digits", alias)


@pytest.fixture
def registry(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    shutil.copy(empty_store, tmp_path / "store.db")
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    yield Registry(f"sqlite:///{tmp_path}/store.db", tmp_path)
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


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
    info = mlflow.models.get_model_info("models:/digits@champion")
    assert info.signature is not None and info.signature.inputs.inputs[0].shape == (-1, 1, 8, 8)
    [logged] = registry.client.search_logged_models([registry.experiment])
    assert {metric.key: metric.value for metric in logged.metrics or ()} == {"val_accuracy": 0.9, "test_accuracy": 0.5}
    curve = registry.client.get_metric_history(registry.run, "val_accuracy")
    assert [point.step for point in curve] == [1, 2, 3]  # as it was before


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


class Choosy(nn.Module):
    """A model that is in no graph: what it does hangs on what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Any:
        return self.layer((images if images.sum() > 0 else -images).flatten(1))


def formats(registry: Registry) -> set[str]:
    """Kinds of the files in which the champion's weights are."""
    [logged] = registry.client.search_logged_models([registry.experiment])
    folder = Path(logged.artifact_location.removeprefix("file://"), "data")
    return {path.suffix for path in folder.rglob("*.p*")}


def test_a_champion_holds_no_pickle(registry: Registry) -> None:
    registry.register(0.9)
    assert formats(registry) == {".pt2"}


@pytest.mark.slow
def test_a_model_of_one_s_own_that_cannot_be_exported_is_kept_as_it_is(registry: Registry) -> None:
    target = f"{__name__}:Choosy"
    trial = {"data": {"kind": "digits"}, "model": {"kind": "import", "target": target}}
    registry.register(0.9, trial, targets=[target])
    assert formats(registry) == {".pth"}
    model = mlflow.pytorch.load_model("models:/digits@champion")
    images = torch.rand(3, 1, 8, 8)
    with torch.inference_mode():
        assert torch.equal(model(images), model(-images))


@pytest.mark.slow
def test_a_model_with_several_heads(registry: Registry) -> None:
    registry.register(0.9, MULTITASK)
    model = mlflow.pytorch.load_model("models:/digits@champion")
    outputs = model(torch.rand(2, 1, 40, 40))
    signature = mlflow.models.get_model_info("models:/digits@champion").signature
    assert signature is not None
    assert {spec.name for spec in signature.outputs.inputs} == set(outputs)
