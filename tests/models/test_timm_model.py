"""Models of timm, and fine-tuning with ImageNet weights that a package has."""

import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import lite0 as lite0_file
import pytest
import torch
from epochs import trained

from tuner.data.downloads import data_dir
from tuner.errors import Mistakes, Problem, UserError
from tuner.interfaces import ImageShape, Output
from tuner.models import TimmModel
from tuner.models.pretrained import timm_weights as pretrained
from tuner.train.checkpoint import read_model, read_state
from tuner.train.trial_config import TrialConfig

TEN = {"": Output(10)}
LITE = lite0_file.NAME
REAL = data_dir() / "cifar10-sample"


def image(side: int = 64, channels: int = 3) -> ImageShape:
    return ImageShape(channels, side, side, mean=(0.1,) * channels, std=(0.2,) * channels)


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with EfficientNet-Lite0's ImageNet weights."""
    return lite0_file.write(tmp_path_factory.mktemp("weights"))


def refused(shape: ImageShape, **fields: Any) -> Problem:
    with pytest.raises(Mistakes) as error:
        TimmModel(**fields).check(shape, TEN)
    [problem] = error.value.problems
    return problem


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize(
    ("name", "stages"),
    [("resnet18", 5), ("convnext_atto", 5), ("vit_tiny_patch16_224", 13), ("mobilenetv3_small_050", 8)],
)
def test_a_model_takes_images_of_any_channels_and_returns_the_outputs(name: str, stages: int, channels: int) -> None:
    heads = {"digit": Output(7, 5, log_probabilities=True), "position": Output(2)}
    model = TimmModel(name=name, dropout=0.1)
    model.check(image(64, channels), heads)
    with torch.device("meta"):
        module = model.build(image(64, channels), heads)
    for mode in (True, False):
        outputs = module.train(mode)(torch.zeros(2, channels, 64, 64, device="meta"))
        assert {head: tuple(output.shape) for head, output in outputs.items()} == {"digit": (2, 7), "position": (2, 2)}
    divided = model.stages_in(module)
    assert divided is not None and len(divided) == stages
    heads_only = {name for name, _ in module.named_parameters() if divided.depth_of(name) == stages}
    assert heads_only == {name for name, _ in module.named_parameters() if name.startswith("heads.")}


@pytest.mark.parametrize(
    ("fields", "key", "message", "hint"),
    [
        ({"name": "resnet1"}, "name", "timm has no model 'resnet1'", "allowed: "),
        ({"name": "resnet18", "weights": "IMAGENET"}, "weights", "'IMAGENET' names no weights", "DEFAULT"),
        ({"name": "resnet18", "freeze": "backbone"}, "freeze", "because weights is none", "weights: DEFAULT"),
        ({"name": "resnet18", "weights": "DEFAULT", "freeze": 9}, "freeze", "9 is more than the stages", "1 to 5"),
        ({"name": "vgg11", "drop_path": 0.1}, "drop_path", "vgg11 has no stochastic depth", "null"),
        ({"name": "swin_tiny_patch4_window7_224"}, "name", "cannot take images 3x2x2", ""),
    ],
)
def test_what_the_model_cannot_be_is_refused(fields: dict[str, Any], key: str, message: str, hint: str) -> None:
    problem = refused(image(2 if "swin" in fields["name"] else 40), **fields)
    assert problem.key == key and message in problem.message and hint in problem.hint


@pytest.mark.parametrize(
    ("name", "has_dropout"), [("resnet18", True), ("convnext_atto", True), ("vgg11", True), ("levit_128s", False)]
)
def test_dropout_is_where_the_model_has_it_or_before_the_output(name: str, has_dropout: bool) -> None:
    def built(dropout: float | None) -> Any:
        with torch.device("meta"):
            return TimmModel(name=name, dropout=dropout).build(image(224), TEN)

    assert built(0.3).head.dropout.p == (0.0 if has_dropout else 0.3)
    assert built(None).head.dropout.p == 0.0


@pytest.mark.slow
def test_it_is_looked_at_once_whatever_of_it_is_searched(monkeypatch: pytest.MonkeyPatch, lite0: str) -> None:
    import timm

    create = mock.Mock(wraps=timm.create_model)
    monkeypatch.setattr(timm, "create_model", create)
    with torch.device("meta"):
        for freeze in (1, 2):
            for probability in (0.1, 0.2):
                model = TimmModel(name=LITE, weights=lite0, freeze=freeze, dropout=probability, drop_path=probability)
                model.check(image(41), TEN)
        model.build(image(41), TEN)
    assert create.call_count == 2, "one to look at, and the one that was built"


def test_it_says_how_to_install_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.process.packages.find_spec", lambda name: None)
    problem = refused(image(33), name="resnet18")
    assert problem.key == "kind" and problem.message == "timm is not installed" and "tuner[timm]" in problem.hint


@pytest.mark.slow
def test_timm_is_imported_only_by_its_models() -> None:
    code = """
import sys
from tuner.train.trial_config import TrialConfig
for model in ({"kind": "cnn"}, {"kind": "torchvision"}, {"kind": "timm", "name": "resnet18"}):
    TrialConfig.model_validate({"data": {"kind": "digits", "canvas": 32}, "model": model})
    print(model["kind"], "timm" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert ran.stdout.splitlines() == ["cnn False", "torchvision False", "timm True"]


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_weights_are_loaded_tensor_by_tensor_with_timm_s_statistics(lite0: str, channels: int) -> None:
    model, shape = TimmModel(name=LITE, weights=lite0), image(64, channels)
    assert model.prepare(shape, TEN) == (model, "")
    module: Any = model.build(shape, TEN)
    model.load_pretrained(module)
    state = torch.load(lite0, weights_only=True)
    backbone = module.trunk.backbone.state_dict()
    different = [name for name, value in backbone.items() if not torch.equal(value, state[name])]
    assert different == ([] if channels == 3 else ["conv_stem.weight"])
    assert (
        module.trunk.normalize.mean.flatten().tolist()
        == module.trunk.normalize.std.flatten().tolist()
        == [0.5] * channels
    )


def test_weights_of_another_model_are_refused(lite0: str) -> None:
    with pytest.raises(UserError, match="these are not weights of resnet18: "):
        TimmModel(name="resnet18", weights=lite0).prepare(image(), TEN)
    with pytest.raises(UserError, match="does not exist"):
        TimmModel(name=LITE, weights="./no such file.pth").prepare(image(), TEN)


def test_without_a_network_it_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*where: Any, **how: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(pretrained, "cached", lambda name: None)
    monkeypatch.setattr(pretrained, "urlopen", unreachable)
    model = TimmModel(name="resnet18", weights="DEFAULT", freeze=2)
    assert not model.is_available
    with pytest.raises(UserError, match="cannot be downloaded") as error:
        model.prepare(image(), TEN)
    assert "HF_HOME" in str(error.value) and "offline: none" in str(error.value)
    changed, message = TimmModel(name="resnet18", weights="DEFAULT", freeze=2, offline="none").prepare(image(), TEN)
    assert changed == TimmModel(name="resnet18", offline="none") and "as `offline: none` says" in message


def test_weights_of_the_hub_s_cache_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lite0: str) -> None:
    from safetensors.torch import save_file

    save_file(torch.load(lite0, weights_only=True), tmp_path / "model.safetensors")
    monkeypatch.setattr(pretrained, "cached", lambda name: tmp_path / "model.safetensors")
    model = TimmModel(name=LITE, weights="DEFAULT")
    module: Any = model.build(image(), TEN)
    model.load_pretrained(module)
    state = torch.load(lite0, weights_only=True)
    assert model.is_available and torch.equal(module.trunk.backbone.conv_stem.weight, state["conv_stem.weight"])


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="needs cifar10-sample in TUNER_DATA_DIR")
def test_frozen_imagenet_features_tell_photos_apart_and_resume_without_the_file(lite0: str, tmp_path: Path) -> None:
    """With real weights 200 photos suffice: with new ones, the accuracy is that of a guess, 0.1."""
    link = tmp_path / "weights.pth"
    link.symlink_to(lite0)
    config = TrialConfig.model_validate(
        {
            "data": {
                "kind": "image_folder",
                "root": str(REAL),
                "size": 64,
                "limit": 200,
                "batch_size": 50,
                "validation": 0.02,
            },
            "model": {"kind": "timm", "name": LITE, "weights": str(link), "freeze": "backbone", "thaw": 3},
            "optimizer": {"kind": "adamw", "lr": 1e-4, "head_lr": 0.01, "layer_decay": 0.7},
            "ema": {"decay": 0.9},
            "precision": "float32",
            "epochs": 3,
            "seed": 3,
        }
    )
    reports = trained(config, tmp_path / "straight")
    assert reports[1]["val_accuracy"] > 0.3
    before, after = (read_state(tmp_path / f"straight/{epoch}")[0] for epoch in (2, 3))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("trunk.backbone.conv_stem") for name in changed)
    link.unlink()
    assert trained(config, tmp_path / "resumed", resume=tmp_path / "straight/2") == reports[2:]
    _, module = read_model(tmp_path / "straight/3")
    assert module(torch.rand(2, 3, 64, 64)).shape == (2, 10)
