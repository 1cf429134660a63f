"""The stages of models, and freezing them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from epochs import trained
from pydantic import ValidationError
from torch import Tensor
from torchvision import models

from tuner.errors import Mistakes, Problem
from tuner.interfaces import ImageShape, Output
from tuner.models import CNN, MLP, MultitaskCNN, ResNetSmall, TorchvisionModel
from tuner.models.base import Model
from tuner.models.pretrained.torchvision import backbone as backbones
from tuner.train.checkpoint import read_state
from tuner.train.trial_config import TrialConfig

SMALL = "shufflenet_v2_x0_5"
IMAGE = ImageShape(3, 32, 32, (0.5,) * 3, (0.5,) * 3)


def names() -> list[str]:
    """The shortest name of each family."""
    found: dict[str, str] = {}
    for name in sorted(backbones.names(), key=len):
        found.setdefault(models.get_model_builder(name).__module__, name)
    return list(found.values())


@pytest.mark.parametrize("name", names())
def test_every_parameter_of_a_backbone_lies_in_a_stage_and_every_stage_has_some(name: str) -> None:
    model = TorchvisionModel(name=name)
    with torch.device("meta"):
        module = model.build(ImageShape(3, 224, 224, (0.5,) * 3, (0.5,) * 3), {"": Output(10)})
    stages = model.stages_in(module)
    assert stages is not None and len(stages) >= 5
    depths = {parameter: stages.depth_of(parameter) for parameter, _ in module.named_parameters()}
    assert {*depths.values()} == {*range(len(stages) + 1)}
    heads = {each for each, depth in depths.items() if depth == len(stages)}
    auxiliary = {each for each in heads if each.startswith("auxiliary.")}  # has layers of its own
    assert heads - auxiliary == {"head.output.weight", "head.output.bias"}
    assert bool(auxiliary) == (name == "googlenet")  # Inception's needs larger images
    parts = [part for stage in stages.names for part in stage]
    assert len(parts) == len({*parts}) and {*parts} <= {each for each, _ in module.named_modules()} | {*depths}


@pytest.mark.parametrize(
    ("model", "first", "count"),
    [
        (TorchvisionModel(), {"conv1", "bn1"}, 5),
        (TorchvisionModel(name="vit_b_32"), {"class_token", "encoder.pos_embedding", "conv_proj"}, 13),
        (TorchvisionModel(name="convnext_tiny"), {"features.0"}, 8),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_stages_of_torchvision_s_models(model: TorchvisionModel, first: set[str], count: int) -> None:
    with torch.device("meta"):
        stages = model.stages_in(model.build(IMAGE, {"": Output(10)}))
    assert stages is not None and len(stages) == count
    assert {name.removeprefix("trunk.backbone.") for name in stages.names[0]} - {"trunk.normalize"} == first


@pytest.mark.parametrize(
    ("model", "count", "outputs"),
    [
        (CNN(), 2, {"": Output(2)}),
        (MultitaskCNN(), 2, {"a": Output(2), "b": Output(3)}),
        (MLP(layers=3), 3, {"": Output(2)}),
        (MLP(layers=0), 0, {"": Output(2)}),
        (ResNetSmall(width=4, stages=4), 5, {"a": Output(2)}),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_stages_of_tuner_s_own_models(model: Model, count: int, outputs: dict[str, Output]) -> None:
    module = model.build(IMAGE, outputs)
    stages = model.stages_in(module)
    assert stages is not None and len(stages) == count
    heads = {name for name, _ in module.named_parameters() if stages.depth_of(name) == count}
    assert heads == {name for name, _ in module.named_parameters() if name.startswith("head")}


# --- freezing


def trial(path: Path | str, epochs: int = 1, **fields: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "data": {"kind": "digits", "canvas": 32, "limit": 64, "batch_size": 32},
            "model": {"kind": "torchvision", "name": SMALL, "weights": str(path), **fields},
            "optimizer": {"kind": "adamw", "lr": 0.01, "head_lr": 0.02, "layer_decay": 0.8},
            "schedule": {"kind": "cosine"},
            "precision": "float32",
            "epochs": epochs,
            "seed": 3,
        }
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save(models.get_model(SMALL, weights=None).state_dict(), path)
    return path


def changed(config: TrialConfig, folder: Path) -> set[str]:
    """The parts of the backbone of which a checkpoint has other values than a new training."""
    module = config.build_model()
    config.model.load_pretrained(module)
    after = read_state(folder)[0]
    before: dict[str, Tensor] = module.state_dict()
    different = {name for name, value in before.items() if not torch.equal(value, after[name])}
    return {name.split(".")[2] for name in different if name.startswith("trunk.backbone.")}


@pytest.mark.slow
def test_frozen_stages_keep_weights_and_statistics_until_they_are_thawed(weights: Path, tmp_path: Path) -> None:
    config = trial(weights, epochs=3, freeze=2, thaw=3)
    reports = trained(config, tmp_path / "straight")
    assert changed(config, tmp_path / "straight/2") == {"stage3", "stage4", "conv5"}
    assert changed(config, tmp_path / "straight/3") == {"conv1", "stage2", "stage3", "stage4", "conv5"}
    assert {report["parameters"] for report in reports} == {config.count_parameters()}
    assert config.count_parameters() == trial(weights).count_parameters()
    states = read_state(tmp_path / "straight/3")[1]["optimizer"]
    steps = {int(state["step"]) for state in states["state"].values()}
    assert steps == {2, 6}, "those that are thawed have made the steps of one epoch"
    for epoch in (1, 2):
        folder = tmp_path / f"resumed {epoch}"
        assert trained(config, folder, resume=tmp_path / f"straight/{epoch}") == reports[epoch:]
        again, straight = (read_state(each / "3")[0] for each in (folder, tmp_path / "straight"))
        assert all(torch.equal(again[name], value) for name, value in straight.items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sgd", "rmsprop", "lion", "muon", "adam"])
def test_every_optimizer_goes_on_with_what_is_thawed(kind: str, weights: Path, tmp_path: Path) -> None:
    momentum = {"momentum": 0.9} if kind in ("sgd", "rmsprop") else {}
    fields = trial(weights, epochs=2, freeze=2, thaw=2).model_dump()
    config = TrialConfig.model_validate(fields | {"optimizer": {"kind": kind, "lr": 0.001} | momentum})
    reports = trained(config, tmp_path / "straight")
    assert "conv1" not in changed(config, tmp_path / "straight/1")
    assert "conv1" in changed(config, tmp_path / "straight/2")
    assert trained(config, tmp_path / "resumed", resume=tmp_path / "straight/1") == reports[1:]


def test_stages_frozen_for_good_are_not_counted_and_stay(weights: Path, tmp_path: Path) -> None:
    config = trial(weights, freeze=4)
    [report] = trained(config, tmp_path)
    assert changed(config, tmp_path / "1") == {"conv5"}
    assert report["parameters"] == config.count_parameters() == (192 * 1024 + 2 * 1024) + 1024 * 10 + 10
    assert report["learning_rate"] == pytest.approx(0.0)  # of the head, at the end of the cosine


@pytest.mark.slow
def test_a_checkpoint_resumes_with_other_groups_of_parameters(weights: Path, tmp_path: Path) -> None:
    """A population changes the learning rates, and with them which parameters share one."""
    trained(trial(weights, epochs=2), tmp_path / "first")
    plain = {"kind": "adamw", "lr": 0.001, "decay_norm_and_bias": False}
    other = TrialConfig.model_validate(trial(weights, epochs=2).model_dump() | {"optimizer": plain})
    assert trial(weights, epochs=2).why_not_resumable_as(other) == ""
    trained(other, tmp_path / "second", resume=tmp_path / "first/1")
    matrices, vectors = read_state(tmp_path / "second/2")[1]["optimizer"]["param_groups"]
    states = read_state(tmp_path / "second/2")[1]["optimizer"]["state"]
    shapes = dict(trial(weights).build_model().named_parameters())
    for group in (matrices, vectors):
        for number, name in zip(group["params"], group["param_names"], strict=True):
            assert states[number]["exp_avg"].shape == shapes[name].shape and states[number]["step"] == 4


@pytest.mark.parametrize(
    ("fields", "key", "message", "hint"),
    [
        ({"freeze": 6}, "freeze", f"6 is more than the stages of {SMALL}", "allowed: none, backbone, or 1 to 5"),
        ({"thaw": 2}, "thaw", "no layers are frozen", "freeze: backbone"),
    ],
)
def test_what_cannot_be_frozen_is_told(fields: dict[str, Any], key: str, message: str, hint: str) -> None:
    with pytest.raises(Mistakes) as error:
        TorchvisionModel(name=SMALL, weights="DEFAULT", **fields).check(IMAGE, {"": Output(10)})
    [problem] = error.value.problems
    assert problem.key == key and problem.message == message and hint in problem.hint


def mistake(**sections: Any) -> Problem:
    with pytest.raises(ValidationError) as error:
        TrialConfig.model_validate({"data": {"kind": "digits"}, "model": {"kind": "cnn"}} | sections)
    cause = error.value.errors()[0]["ctx"]["error"]
    assert isinstance(cause, Mistakes)
    [problem] = cause.problems
    return problem


def test_an_epoch_of_thawing_that_never_comes_is_told(weights: Path) -> None:
    model = trial(weights, epochs=5, freeze="backbone", thaw=5).model.model_dump()
    problem = mistake(model=model, epochs=4)
    assert problem.key == "model.thaw" and "ends after epoch 4" in problem.message and "2 to 4" in problem.hint


@pytest.mark.parametrize(("field", "value"), [("head_lr", 0.1), ("layer_decay", 0.9)])
def test_the_head_of_a_model_of_the_user_s_own_has_to_be_named(field: str, value: float) -> None:
    target = {"kind": "import", "target": "torch.nn:Identity"}
    optimizer = {"kind": "sgd", field: value}
    with pytest.raises(ValidationError) as error:
        TrialConfig.model_validate({"data": {"kind": "digits"}, "model": target, "optimizer": optimizer})
    problems: Any = error.value.errors()[0]["ctx"]["error"]
    [problem] = [each for each in problems.problems if each.key.startswith("optimizer")]
    assert problem.key == f"optimizer.{field}" and "model.head" in problem.hint
