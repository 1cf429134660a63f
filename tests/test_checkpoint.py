import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import tuner
from tuner.api import load
from tuner.errors import UserError
from tuner.objectives import Objective
from tuner.train.checkpoint import Save, read_model, read_state
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
    assert {path.name for path in folder.iterdir()} == {"model.pt", "state.pt", "trial.yaml", "metrics.json"}
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
    trial, model = read_model(folder)
    assert trial == config
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
    with pytest.raises(UserError, match=f"is no checkpoint: {missing} not found") as error:
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
    kept = save.kept()
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
    Save(trial, model.state_dict(), {"epoch": 1}, {"epoch": 1}).kept()(tmp_path)
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
    with pytest.raises(UserError, match=f"it would run code that it names: {target}"):
        load(folder)
    with pytest.raises(UserError, match="it is not called"):
        load(folder, trust=[target])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\xff", "can't decode"),
        (b"[" * 5000, "nested too deeply"),
        (b"!!timestamp x", "constructor"),
        (b"1", "valid dictionary"),
        (b"data: {kind: digits}\nmodel: {kind: cnn, width1: 60000, width2: 60000}", "weights, and model.pt holds"),
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
