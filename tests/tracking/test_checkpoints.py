"""What MODEL means: real stores, and checkpoints of real models."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import tuner as command_line
from mlflow import MlflowClient
from PIL import Image
from torch import Tensor

import tuner
from tuner.cli.printing.load_call import load_call
from tuner.errors import UserError
from tuner.tracking.checkpoints import FORMS, checkpoint_of, pinned
from tuner.train.checkpoint import DESCRIPTION, Damaged, Save, read_description
from tuner.train.trial_config import TrialConfig

JOB = "20260101-000000-aaaa"
IMAGES = torch.rand(2, 1, 8, 8)


class Store:
    """A store with an experiment of two trials, the second of which is the winner."""

    def __init__(self, folder: Path) -> None:
        uri = f"sqlite:///{folder}/store.db"
        self.client, self.folder = MlflowClient(uri, registry_uri=uri), folder
        self.experiment = self.client.create_experiment("small", artifact_location=str(folder / "artifacts"))
        tags = {"tuner.role": "parent", "tuner.job": JOB, "tuner.status": "completed"}
        self.job = self.client.create_run(self.experiment, tags=tags).info.run_id
        self.client.log_param(self.job, "objective", "max val_accuracy")
        self.trials = [self.trial(number, epoch=number + 2) for number in range(2)]
        self.client.set_tag(self.job, "tuner.winner_run", self.trials[1])
        self.client.set_terminated(self.job)

    def trial(self, number: int, epoch: int) -> str:
        """A trial's run, with a checkpoint of weights of its own."""
        config = TrialConfig.model_validate({"data": {"kind": "digits"}, "model": {"kind": "cnn"}, "seed": number})
        torch.manual_seed(number)
        folder = self.folder / f"trial-{number}"
        folder.mkdir()
        Save(config, config.build_model().state_dict(), {}, {"epoch": epoch})(folder)
        tags = {"tuner.role": "trial", "tuner.trial": str(number), "mlflow.parentRunId": self.job}
        run: str = self.client.create_run(self.experiment, tags=tags | {"tuner.status": "completed"}).info.run_id
        self.client.log_metric(run, "best_val_accuracy", number / 10)
        self.client.log_artifacts(run, str(folder), "checkpoint")
        self.client.set_terminated(run)
        return run

    def register(self, number: int, alias: str, name: str = "small", **tags: str) -> str:
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name)
        run = self.trials[number]
        version = self.client.create_model_version(name, f"runs:/{run}/model", run, tags=tags).version
        self.client.set_registered_model_alias(name, alias, version)
        return str(version)


@pytest.fixture
def there(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    shutil.copy(empty_store, tmp_path / "store.db")
    return Store(tmp_path)


def outputs(model: str | Path) -> Tensor:
    with torch.inference_mode():
        found: Tensor = tuner.load(model)(IMAGES)
    return found


def number_of(model: str, store: Store) -> int:
    """Which trial a model is of."""
    [number] = [each for each in (0, 1) if torch.equal(outputs(model), outputs(store.folder / f"trial-{each}"))]
    return number


def refused(model: str | Path) -> str:
    with pytest.raises(UserError) as error:
        tuner.load(model)
    text = str(error.value)
    assert FORMS in text
    return text


@pytest.mark.slow
def test_a_run_a_job_and_an_experiment_without_a_registered_model(there: Store) -> None:
    assert [number_of(run, there) for run in there.trials] == [0, 1]
    assert [number_of(name, there) for name in (there.job, JOB, "small")] == [1, 1, 1]


@pytest.mark.slow
def test_versions_by_alias_and_by_number(there: Store) -> None:
    for number, alias in ((0, "champion"), (1, "candidate")):
        there.register(number, alias, **{"tuner.epoch": str(number + 2)})
    forms = ["small@champion", "models:/small@champion", "models:/small/1", "small@candidate", "models:/small/2"]
    assert [number_of(form, there) for form in [*forms, "models:/small/latest"]] == [0, 0, 0, 1, 1, 1]


def test_a_name_means_the_champion_where_there_is_one(there: Store) -> None:
    there.register(0, "candidate")
    assert number_of("small", there) == 1
    there.register(0, "champion")
    assert number_of("small", there) == 0
    there.register(1, "champion", name="a-copy-of-it")
    assert number_of("a-copy-of-it", there) == 1


def test_the_command_predicts_with_whatever_means_a_model(there: Store) -> None:
    there.register(0, "champion")
    Image.effect_noise((8, 8), 60).save(there.folder / "x.png")
    said: dict[str, str] = {}
    for model in ("small@champion", "small", there.trials[0], there.trials[1], "trial-0"):
        command = ["predict", model, "x.png", "--uri", f"sqlite:///{there.folder}/store.db"]
        status, said[model] = command_line(there.folder, *command)
        assert status == 0 and said[model].startswith('{"path": "x.png", "label": ')
    assert len({said[model] for model in said if model != there.trials[1]}) == 1 < len(set(said.values()))
    status, refusal = command_line(there.folder, "predict", "smal", *command[2:])
    assert status == 2 and refusal.startswith("error: ") and FORMS in refusal


def test_folders_here_and_in_an_object_store(there: Store) -> None:
    folder = there.folder / "trial-0"
    for form in (str(folder), "trial-0", "./trial-0", f"file://{folder}"):
        assert number_of(form, there) == 0, form


def test_a_folder_of_an_experiment_s_name_is_not_taken_for_a_checkpoint(there: Store) -> None:
    (there.folder / "small").mkdir()
    assert number_of("small", there) == 1
    with pytest.raises(Damaged, match=r"is not a checkpoint: model\.pt, "):
        tuner.load(Path("small"))


@pytest.mark.slow
def test_a_pinned_model_is_the_same_one_after_its_alias_has_moved(there: Store) -> None:
    assert [pinned(name) for name in (there.trials[0], there.job, "small")] == [there.trials[i] for i in (0, 1, 1)]
    for number in (0, 1):
        there.register(number, "champion")
        versions = [pinned(name) for name in ("small", "small@champion", "models:/small@champion")]
        assert versions == [f"models:/small/{number + 1}"] * 3
    assert number_of("models:/small/1", there) == 0 and number_of("small", there) == 1
    for folder in (str(there.folder / "trial-0"), "trial-0", f"file://{there.folder}/trial-0"):
        assert pinned(folder) == folder
    with pytest.raises(UserError, match="a model is NAME"):
        pinned("large")


def test_nothing_stays_of_what_was_downloaded(there: Store) -> None:
    with checkpoint_of("small") as folder:
        assert (folder / "model.pt").is_file()
    assert not folder.exists()


def test_only_the_files_that_are_needed_are_downloaded(there: Store) -> None:
    there.register(1, "champion")
    for model in (there.trials[1], "small@champion", f"file://{there.folder}/trial-1"):
        with checkpoint_of(model, files=("missing.txt", *DESCRIPTION)) as folder:
            assert sorted(each.name for each in folder.iterdir()) == sorted(DESCRIPTION), model
            signature, config = read_description(folder)
        assert signature.image.channels == 1 and config.model.kind == "cnn", model


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("smal", "did you mean small?"),
        ("smal@champion", "there is no registered model 'smal'\n    did you mean small?"),
        ("small@chumpion", "the registered model 'small' has no alias 'chumpion'\n    there are: small@champion"),
        ("models:/small/7", "the registered model 'small' has no version 7\n    there are: 1"),
        ("models:/small", "'models:/small' is no address of a registered model"),
        ("models:/it's/1", "there is no registered model"),
        ("0" * 32, "no experiment, no job and no run"),
        ("a" * 300, "no experiment, no job and no run"),
        ("", "no experiment, no job and no run ''"),
        ("a\0b", "no experiment, no job and no run"),
        ("runs/small", "there is no folder 'runs/small'"),
        (Path("nowhere"), "there is no folder 'nowhere'"),
        ("file:///nowhere/at/all", "the checkpoint cannot be read"),
        ("gone://bucket/checkpoint", "the checkpoint cannot be read"),
    ],
)
def test_what_there_is_not_is_told_with_what_there_is(model: str | Path, words: str, there: Store) -> None:
    there.register(1, "champion")
    assert words in refused(model)


def test_an_alias_of_an_experiment_without_a_registered_model(there: Store) -> None:
    assert "'small' alone means the winner of the experiment's last job" in refused("small@champion")


def test_no_store_is_made_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert "there is no store to read" in refused("small")
    assert not list(tmp_path.iterdir())


def test_a_version_whose_run_has_trained_on_is_not_taken_for_it(there: Store) -> None:
    there.register(1, "champion", **{"tuner.epoch": "2"})
    text = refused("small")
    assert "models:/small/1 is of epoch 2" in text and "of epoch 3" in text
    assert "mlflow.pytorch.load_model('models:/small/1')" in text


def test_a_version_whose_run_is_gone(there: Store) -> None:
    there.register(1, "champion")
    there.client.delete_run(there.trials[1])
    assert "was deleted" in refused("models:/small@champion")


def test_a_version_that_was_registered_without_a_run(there: Store, tmp_path: Path) -> None:
    there.register(1, "champion")
    version = there.client.create_model_version("small", source=tmp_path.as_uri()).version
    text = refused(f"models:/small/{version}")
    assert f"models:/small/{version} holds no checkpoint" in text and "names no run" in text


def test_a_run_without_a_checkpoint(there: Store) -> None:
    tags = {"tuner.role": "trial", "tuner.trial": "2", "mlflow.parentRunId": there.job}
    run = there.client.create_run(there.experiment, tags=tags).info.run_id
    assert f"there is no checkpoint of the run {run}" in refused(run)
    there.client.set_tag(run, "fixed.target", "mine:train")
    assert f"mlflow artifacts download -r {run} -a checkpoint" in refused(run)


def test_a_job_without_a_winner(there: Store) -> None:
    there.client.set_tag(there.job, "tuner.winner_run", "0" * 32)
    assert f"the job {JOB} of small has no winner" in refused("small")


def test_damage_is_told_by_the_name_that_was_given(there: Store) -> None:
    [weights] = there.folder.glob(f"artifacts/{there.trials[1]}/artifacts/checkpoint/model.pt")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(Damaged) as error:
        tuner.load("small")
    assert str(error.value).startswith("small: is a damaged checkpoint: model.pt")


class TestTheLineThatLoadsAModel:
    def test_names_what_is_trusted_and_where_it_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = tmp_path / "project" / "experiments"
        (files / "pkg").mkdir(parents=True)
        (files / "net.py").touch()
        for here, code in ((files, None), (files.parent, "experiments"), (tmp_path, "project/experiments")):
            monkeypatch.chdir(here)
            more = f', code="{code}"' if code else ""
            assert load_call("id", ["net:Net"], files) == f'tuner.load("id", trust=["net:Net"]{more})'
        monkeypatch.chdir(files / "pkg")
        assert load_call("id", ["pkg.deep:Net"], files) == f'tuner.load("id", trust=["pkg.deep:Net"], code="{files}")'

    def test_says_no_folder_of_what_is_installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert load_call("id", ["torchvision.models:resnet18"], tmp_path) == (
            'tuner.load("id", trust=["torchvision.models:resnet18"])'
        )
        assert load_call("id", [], None) == 'tuner.load("id")'


def test_code_in_another_folder_is_found(
    own: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = own(
        "import torch\ndef net(channels, classes):\n    return torch.nn.Sequential(torch.nn.Flatten(), "
        "torch.nn.Linear(64 * channels, classes))\n"
    )
    target = f"{module}:net"
    model = {"kind": "import", "target": target}
    trial = TrialConfig.model_validate({"data": {"kind": "digits"}, "model": model, "seed": 0})
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    Save(trial, trial.build_model().state_dict(), {}, {"epoch": 1})(folder)
    call: dict[str, Any] = {"trust": [target], "code": tmp_path / "own"}
    with pytest.raises(UserError, match="would run code that it names"):
        tuner.load(folder, code=tmp_path / "own")
    with pytest.raises(UserError, match=r"code: there is no folder '.*nowhere'"):
        tuner.load(folder, trust=[target], code=tmp_path / "nowhere")
    assert tuner.load(folder, **call)(IMAGES).shape == (2, 10)
