import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import tuner
from tuner.api import load
from tuner.data.imported import _read
from tuner.errors import UserError
from tuner.objectives import Objective
from tuner.train.checkpoint import Save, read_model, read_state, read_trial
from tuner.train.loop import fit
from tuner.train.trial_config import TrialConfig

CNN = {"kind": "cnn", "width1": 4, "width2": 4, "hidden": 8, "dropout": 0.5}
VARIANTS: dict[str, dict[str, Any]] = {
    "sgd": {"model": CNN, "optimizer": {"kind": "sgd", "momentum": 0.9}, "schedule": {"kind": "one_cycle"}},
    "adamw": {"model": CNN, "optimizer": {"kind": "adamw"}, "schedule": {"kind": "cosine", "warmup": 0.5}},
    "rmsprop": {"model": CNN, "optimizer": {"kind": "rmsprop"}, "schedule": {"kind": "step"}, "precision": "float16"},
    "adam": {
        "task": {"kind": "multitask"},
        "model": {"kind": "multitask_cnn", "width1": 4, "width2": 4},
        "optimizer": {"kind": "adam"},
        "early_stopping": {"patience": 2},
    },
}


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=list(VARIANTS))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrialConfig]:
    """A checkpoint of a trained trial, and that trial."""
    folder = tmp_path_factory.mktemp("checkpoint")
    parts = {"data": {"kind": "digits", "limit": 64}, "seed": 3, "precision": "float32"} | request.param
    config = TrialConfig.model_validate(parts)

    def report(metrics: dict[str, Any], save: Save) -> None:
        save(folder)

    fit(config, Objective(metric="val_loss", mode="min"), report, device=torch.device("cpu"))
    return folder, config


def test_it_holds_the_trial_and_its_metrics_as_text(trained: tuple[Path, TrialConfig]) -> None:
    folder, config = trained
    assert {path.name for path in folder.iterdir()} == {
        "model.pt",
        "state.pt",
        "trial.yaml",
        "signature.json",
        "metrics.json",
    }
    assert TrialConfig.model_validate(yaml.safe_load((folder / "trial.yaml").read_text())) == config
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["epoch"] == 1 and set(config.metrics) < set(metrics)


def test_nothing_in_it_can_run_code(trained: tuple[Path, TrialConfig]) -> None:
    """Each name that its pickles would import is one of torch's for tensors, or a plain container."""
    from pickletools import genops

    folder, _ = trained
    for name in ("model.pt", "state.pt"):
        torch.load(folder / name, weights_only=True)
        with zipfile.ZipFile(folder / name) as archive:
            [inner] = [entry for entry in archive.namelist() if entry.endswith("data.pkl")]
            imported = {argument for code, argument, _ in genops(archive.read(inner)) if code.name == "GLOBAL"}
        allowed = {
            "torch._utils _rebuild_tensor_v2",
            "torch FloatStorage",
            "torch LongStorage",
            "collections OrderedDict",
        }
        assert imported <= allowed | {"collections Counter", "collections defaultdict", "__builtin__ dict"}


def test_the_model_is_read_back_ready_to_use(trained: tuple[Path, TrialConfig]) -> None:
    folder, config = trained
    _, model = read_model(folder)
    assert read_trial(folder) == config
    assert not any(module.training for module in model.modules())
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())
    weights, state = read_state(folder)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert state["epoch"] == 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_its_outputs_are_those_of_the_model_that_was_saved(layout: torch.memory_format, tmp_path: Path) -> None:
    torch.manual_seed(5)
    config = TrialConfig.model_validate({"data": {"kind": "digits"}, "model": CNN, "seed": 0})
    model = config.build_model().to(memory_format=layout)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    Save(config, model.state_dict(), {"epoch": 1}, {"epoch": 1})(tmp_path)
    model.eval()
    images = torch.rand(16, 1, 8, 8)
    loaded = load(tmp_path)
    # Another layout sums in another order.
    torch.testing.assert_close(loaded(images), model(images), rtol=1e-4, atol=1e-4)
    if layout is torch.contiguous_format:
        assert torch.equal(loaded(images), model(images))
    assert torch.equal(loaded(images), loaded(images)), "without dropout"


@pytest.mark.parametrize("as_what", [str, Path])
def test_tuner_load_is_the_same(trained: tuple[Path, TrialConfig], as_what: type[str] | type[Path]) -> None:
    folder, config = trained
    model = tuner.load(as_what(folder))
    images = torch.rand(4, 1, 8, 8)

    def by_head(outputs: Any) -> list[Tensor]:
        return [outputs] if isinstance(outputs, Tensor) else list(outputs.values())

    assert isinstance(model, nn.Module)
    read = by_head(read_model(folder)[1](images))
    assert len(read) == len(config.task.named_heads)
    assert all(torch.equal(one, other) for one, other in zip(by_head(model(images)), read, strict=True))


@pytest.mark.parametrize("missing", ["model.pt", "trial.yaml", "metrics.json"])
def test_a_folder_that_is_no_whole_checkpoint_is_the_user_s_mistake(
    missing: str, trained: tuple[Path, TrialConfig], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained[0], folder)
    (folder / missing).unlink()
    with pytest.raises(UserError, match=f"is not a checkpoint: {missing} not found") as error:
        load(folder)
    assert error.value.problems[0].where == str(folder)


def test_an_empty_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.pt, trial\.yaml, metrics\.json not found"):
        load(str(tmp_path))


class Counting(nn.Sequential):
    """A model that keeps more than tensors, as torch has it."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
        self.seen = 0

    def get_extra_state(self) -> dict[str, int]:
        return {"seen": self.seen}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.seen = state["seen"]


def test_what_is_kept_of_a_moment_is_that_moment_s(tmp_path: Path) -> None:
    config = TrialConfig.model_validate({"data": {"kind": "digits"}, "model": CNN, "seed": 0})
    model = config.build_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

    def step() -> None:
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()

    step()
    save = Save(config, model.state_dict(), {"optimizer": optimizer.state_dict(), "best": None}, {"epoch": 1})
    then, now = tmp_path / "then", tmp_path / "now"
    for folder in (then, now):
        folder.mkdir()
    save(then)
    kept = save.snapshot()
    step()
    kept(now)
    (weights, state), (wanted, held) = read_state(now), read_state(then)
    assert not any(torch.equal(value, wanted[name]) for name, value in model.named_parameters())
    assert weights.keys() == wanted.keys() and all(torch.equal(weights[name], wanted[name]) for name in wanted)
    assert str(state) == str(held) and "exp_avg" in str(state)


def test_what_a_module_keeps_beside_its_tensors_is_read_back(tmp_path: Path) -> None:
    parts = {"data": {"kind": "digits"}, "model": {"kind": "import", "target": f"{__name__}:Counting"}, "seed": 0}
    trial = TrialConfig.model_validate(parts)
    model = trial.build_model()
    assert isinstance(model, Counting)
    model.seen = 7
    Save(trial, model.state_dict(), {"epoch": 1}, {"epoch": 1}).snapshot()(tmp_path)
    read = load(tmp_path, trust=[f"{__name__}:Counting"])
    assert isinstance(read, Counting) and read.seen == 7
    assert read_state(tmp_path)[0]["_extra_state"] == {"seen": 7}


def test_a_checkpoint_that_would_run_code_is_refused(trained: tuple[Path, TrialConfig], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained[0], folder)
    torch.save({"weights": _Mine(tmp_path / "ran")}, folder / "model.pt")
    with pytest.raises(UserError, match="could run code"):
        load(folder)
    assert not (tmp_path / "ran").exists()


def test_what_a_package_offers_is_not_called_either(trained: tuple[Path, TrialConfig], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained[0], folder)
    torch.save(_Mine(tmp_path / "ran"), folder / "more.pt")
    args = {"f": str(folder / "more.pt"), "weights_only": False}
    trial = yaml.safe_load((folder / "trial.yaml").read_text())
    (folder / "trial.yaml").write_text(
        yaml.safe_dump(trial | {"model": {"kind": "import", "target": "torch:load", "args": args}})
    )
    with pytest.raises(UserError, match=r"names: torch:load\n.*trust=\['torch:load'\]"):
        load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["model", "data"])
@pytest.mark.parametrize(
    "target", ["os:system", "subprocess:call", "tuner.train.checkpoint:shutil", "multiprocessing:Process"]
)
def test_nothing_is_called_that_a_checkpoint_names(
    kind: str, target: str, trained: tuple[Path, TrialConfig], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained[0], folder)
    trial = yaml.safe_load((folder / "trial.yaml").read_text())
    trial[kind] = {"kind": "import", "target": target, "args": {"command": f"touch {tmp_path}/ran"}}
    (folder / "trial.yaml").write_text(yaml.safe_dump(trial))
    readers = [read_trial] if kind == "data" else [read_trial, read_model]  # the signature says what the data did
    for read in readers:
        with pytest.raises(UserError, match=f"it would run code that it names: {target}"):
            read(folder)
        with pytest.raises(UserError, match="it is not called"):
            read(folder, trust=[target])
    if kind == "data":
        read_model(folder)
        (folder / "signature.json").unlink()
        with pytest.raises(UserError, match=f"it would run code that it names: {target}"):
            read_model(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\xff", "can't decode"),
        (b"[" * 5000, "nested too deeply"),
        (b"!!timestamp x", "constructor"),
        (b"1", "valid dictionary"),
        (
            b"data: {kind: digits}\nmodel: {kind: cnn, width1: 60000, width2: 60000}",
            "weights, but model.pt holds|cnn has one output",
        ),
    ],
)
def test_a_trial_that_it_cannot_be_of_is_told(
    text: bytes, words: str, trained: tuple[Path, TrialConfig], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained[0], folder)
    (folder / "trial.yaml").write_bytes(text)
    with pytest.raises(UserError, match=words):
        load(folder)


class _Mine:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model.pt", "state.pt"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "flipped", "text", "a list"])
def test_a_damaged_checkpoint_is_told_as_one(
    name: str, damage: str, trained: tuple[Path, TrialConfig], tmp_path: Path
) -> None:
    """Also where only a weight is another one: torch itself would load that."""
    folder = tmp_path / "copy"
    shutil.copytree(trained[0], folder)
    file = folder / name
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        middle = whole.index(archive.read(largest)) + 8
    match damage:
        case "missing":
            file.unlink()
        case "empty":
            file.write_bytes(b"")
        case "truncated":
            file.write_bytes(whole[: len(whole) // 2])
        case "flipped":
            file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        case "text":
            file.write_text("weights")
        case "a list":
            torch.save([1, 2], file)
    with pytest.raises(UserError, match=rf"is a damaged checkpoint: {name}") as error:
        read_state(folder)
    assert error.value.problems[0].where == str(folder)


DATA = """
import numpy as np
from pathlib import Path

class Colours:
    classes = ["red", "green", "blue"]

    def __init__(self, train, root):
        if not Path(root).is_dir():
            raise FileNotFoundError(root)

    def __len__(self):
        return 60

    def __getitem__(self, index):
        return np.full((6, 5, 3), 20 * (index % 3), dtype=np.uint8), index % 3
"""

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, channels, classes, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, width, 3), nn.Flatten(), nn.Linear(width * 12, classes))

    def forward(self, images):
        return self.layers(images)
"""


@dataclass(frozen=True)
class Own:
    """A checkpoint of a trial on a dataset of the user's own, which is gone."""

    folder: Path
    module: str
    """Where the model is."""
    outputs: Tensor
    """Of the model as it was saved, for images of zeros."""


@pytest.fixture(params=["cnn", "import"])
def without_data(request: pytest.FixtureRequest, own: Callable[[str], str], tmp_path: Path) -> Own:
    pictures, folder = tmp_path / "pictures", tmp_path / "checkpoint"
    pictures.mkdir()
    folder.mkdir()
    dataset, net = own(DATA), own(NET)
    model = CNN if request.param == "cnn" else {"kind": "import", "target": f"{net}:Net"}
    data = {"kind": "import", "target": f"{dataset}:Colours", "args": {"root": str(pictures)}, "validation": 0.2}
    config = TrialConfig.model_validate({"data": data, "model": model, "seed": 0})
    built = config.build_model()
    Save(config, built.state_dict(), {"epoch": 1}, {"epoch": 1})(folder)
    pictures.rmdir()
    _read.cache_clear()
    sys.modules.pop(dataset)
    (tmp_path / "own" / f"{dataset}.py").unlink()
    return Own(folder, net, built.eval()(torch.zeros(2, 3, 6, 5)).detach())


def test_a_model_loads_where_its_data_is_not(without_data: Own) -> None:
    is_own = "import" in (without_data.folder / "trial.yaml").read_text().split("model:")[1].split("optimizer:")[0]
    trust = [f"{without_data.module}:Net"] if is_own else []
    model = tuner.load(without_data.folder, trust=trust)
    assert torch.equal(model(torch.zeros(2, 3, 6, 5)), without_data.outputs)


def test_a_signature_says_what_inference_needs(without_data: Own) -> None:
    said = json.loads((without_data.folder / "signature.json").read_text())
    assert said["input"] == {
        "channels": 3,
        "height": 6,
        "width": 5,
        "layout": "NCHW",
        "dtype": "float32",
        "range": [0, 1],
    }
    assert said["normalization"]["mean"] == pytest.approx([20 / 255] * 3)
    assert said["outputs"][""] | {"hidden": None} == {
        "target": "label",
        "size": 3,
        "classes": ["red", "green", "blue"],
        "unit": None,
        "multilabel": False,
        "per_pixel": False,
        "boxes": False,
        "masks": False,
        "ids": [],
        "hidden": None,
        "log_probabilities": False,
    }
    assert said["versions"]["tuner"] == tuner.__version__ and said["versions"]["torch"] == torch.__version__
    assert said["preprocessing"] == [] and said["format"] == 1


def test_without_a_signature_the_data_is_needed_which_is_told(without_data: Own) -> None:
    """Older versions wrote none."""
    (without_data.folder / "signature.json").unlink()
    targets = TrialConfig.targets_in(yaml.safe_load((without_data.folder / "trial.yaml").read_text()))
    with pytest.raises(UserError, match=r"cannot be loaded: there is no module (?s:.*)there is no signature\.json"):
        load(without_data.folder, trust=targets)


def test_a_checkpoint_of_an_older_version_loads_from_its_data(
    trained: tuple[Path, TrialConfig], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained[0], folder)
    (signature, model), images = read_model(folder), torch.rand(2, 1, 8, 8)
    (folder / "signature.json").unlink()
    again, same = read_model(folder)
    assert again == signature
    assert str(model(images)) == str(same(images))


def test_a_signature_says_how_the_images_came_to_their_size(tmp_path: Path) -> None:
    losses = {"digit": ("label", "cross_entropy"), "place": ("position", "mse")}
    heads = {name: {"target": target, "loss": {"kind": loss}} for name, (target, loss) in losses.items()}
    parts = {
        "data": {"kind": "digits", "size": 12, "canvas": 40},
        "task": {"kind": "multitask", "heads": heads},
        "seed": 0,
    }
    config = TrialConfig.model_validate(parts | {"model": {"kind": "multitask_cnn", "width1": 2, "width2": 2}})
    Save(config, config.build_model().state_dict(), {"epoch": 1}, {"epoch": 1})(tmp_path)
    signature, model = read_model(tmp_path)
    assert [step["kind"] for step in signature.preprocessing] == ["resize", "canvas"]
    assert (signature.input.height, signature.input.width) == (40, 40)
    asked = {name: (each.target, each.size, each.unit) for name, each in signature.outputs.items()}
    assert asked == {"digit": ("label", 10, None), "place": ("position", 2, "pixels")}
    assert signature.outputs["digit"].classes == tuple("0123456789")
    assert signature.task_outputs == config.task.outputs(config.data.targets) and signature.image == config.data.image
    assert set(model(torch.rand(2, 1, 40, 40))) == {"digit", "place"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda said: "", "Invalid JSON"),
        (lambda said: "[]", "Input should be an object"),
        (lambda said: said | {"input": said["input"] | {"channels": 0}}, "input.channels: "),
        (lambda said: said | {"input": said["input"] | {"channels": 2}}, "one value for each of 2 channels"),
        (lambda said: said | {"outputs": {}}, "signature.json: outputs is empty"),
        (lambda said: said | {"format": 2}, "format: "),
        (lambda said: said | {"input": said["input"] | {"height": 16}}, "model.pt"),
        (lambda said: {key: value for key, value in said.items() if key != "outputs"}, "outputs: Field required"),
    ],
)
def test_a_damaged_signature_is_told_as_other_damage(
    change: Callable[[Any], Any], words: str, trained: tuple[Path, TrialConfig], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained[0], folder)
    changed = change(json.loads((folder / "signature.json").read_text()))
    (folder / "signature.json").write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(UserError, match=words) as error:
        load(folder)
    assert "is a damaged checkpoint" in str(error.value)
    assert error.value.problems[0].where == str(folder)
