"""Winners that are registered in a real store, without a job."""

import base64
from pathlib import Path
from typing import Any

import torch
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from tuner.inspection.encoding import encoded
from tuner.tracking.registered.registering import register
from tuner.train import checkpoint
from tuner.train.trial_config import TrialConfig
from tuner.user_code import files


class Registry:
    """A store with one experiment, and winners that are registered there."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.folder, self.count = uri, folder, 0
        self.client = MlflowClient(uri, registry_uri=uri)
        self.experiment = self.client.create_experiment("digits")

    def register(self, value: float, trial: dict[str, Any] | None = None, **said: Any) -> str:
        """Register the checkpoint of a model with random weights."""
        config = TrialConfig.model_validate(trial or {"data": {"kind": "digits"}, "model": {"kind": "cnn"}})
        self.count += 1
        place = self.folder / str(self.count)
        place.mkdir()
        torch.manual_seed(0)
        checkpoint.Save(config, config.build_model().state_dict(), {}, {"epoch": 2, "val_accuracy": value})(place)
        self.run = self.client.create_run(self.experiment, tags={"tuner.role": "trial"}).info.run_id
        for name, number in (("val_accuracy", value), ("test_accuracy", 0.5)):
            for epoch in (1, 2, 3):
                self.client.log_metric(self.run, name, number - abs(epoch - 2) / 10, step=epoch)
        self.client.set_terminated(self.run, "FINISHED", end_time=1_700_000_000_000)
        [batch] = list(config.data.load()[1].first(1).batches(1))
        image = encoded((batch.inputs[0] * 255).round().byte().numpy())
        told = {"name": "digits", "metric": "val_accuracy", "mode": "max", "value": value, "dataset": "digits 1"}
        told |= {"checkpoint": place, "epoch": 2, "metrics": ["val_accuracy", "test_accuracy"]}
        code = files.sources_of(config.loading_targets or ())
        told |= {"targets": config.targets, "code": {name: as_text(source) for name, source in code.items()}}
        return register(self.client, self.uri, self.run, told | {"example": as_text(image)} | said)

    def at(self, alias: str) -> ModelVersion:
        return self.client.get_model_version_by_alias("digits", alias)

    def model(self) -> Path:
        """The folder of the only version's files."""
        [logged] = self.client.search_logged_models([self.experiment])
        return Path(logged.artifact_location.removeprefix("file://"))


def as_text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def registry_in(folder: Path) -> Registry:
    """A registry in a store ``store.db`` of a folder, which is there already or is made."""
    return Registry(f"sqlite:///{folder}/store.db", folder)
