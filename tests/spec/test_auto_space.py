from typing import Any, get_args
from unittest import mock

import pytest
from conftest import Write
from pydantic import ValidationError
from torchvision import models

from tuner.errors import UserError
from tuner.search.numeric_distributions import LogUniform, Uniform
from tuner.spec.auto_space import _tunables
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.loader import load
from tuner.spec.space_checks import refusal
from tuner.storage.yaml import parse_yaml
from tuner.train.optim.optimizers import OptimizerConfig
from tuner.train.trial_config import TrialConfig

TRIAL = {
    "data": {"kind": "digits", "limit": 64},
    "model": {"kind": "cnn"},
    "optimizer": {"kind": "sgd"},
    "epochs": 20,
}


def experiment(space: Any = "auto", trial: dict[str, Any] | None = None, **parts: Any) -> ExperimentSpec:
    whole = {
        "name": "auto",
        "objective": "val_accuracy",
        "trial": TRIAL | (trial or {}),
        "space": space,
        "search": {"kind": "random", "trials": 4},
    }
    return ExperimentSpec.model_validate(whole | parts)


def test_auto_searches_what_is_worth_it() -> None:
    space = experiment().space
    assert set(space) == {
        *("optimizer.lr", "optimizer.momentum", "optimizer.weight_decay", "schedule.warmup"),
        *("data.augment.crop", "data.augment.color", "data.augment.erase", "data.augment.mixup"),
        *("model.width1", "model.width2", "model.dropout", "task.loss.label_smoothing"),
    }
    assert isinstance(space["optimizer.lr"], LogUniform)


def test_what_the_file_sets_is_not_searched() -> None:
    trial = {
        "optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.9},
        "data": {"kind": "digits", "augment": {"mixup": 0.0}},
    }
    space = experiment(trial=trial).space
    assert not {"optimizer.lr", "optimizer.momentum", "data.augment.mixup"} & set(space)
    assert {"optimizer.weight_decay", "data.augment.crop"} <= set(space)


def test_only_the_fields_of_the_trial_s_own_kinds_are_searched() -> None:
    trial = {"model": {"kind": "mlp"}, "optimizer": {"kind": "adamw"}, "schedule": {"kind": "one_cycle"}}
    space = experiment(trial=trial).space
    assert {"model.width", "schedule.rise"} <= set(space)
    assert not {"model.width1", "optimizer.momentum", "schedule.warmup"} & set(space)


def test_a_warmup_is_a_share_of_the_epochs() -> None:
    warmup = experiment().space["schedule.warmup"]
    assert isinstance(warmup, Uniform)
    assert warmup.corners() == [0, 2]


@pytest.mark.slow
def test_what_a_trial_cannot_have_is_not_searched() -> None:
    space = experiment(trial={"data": {"kind": "digits", "canvas": 24}}).space
    assert not {"data.augment.crop", "data.augment.mixup"} & set(space), "they move what has a position"
    assert "data.augment.color" in space


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "has_drop_path"),
    [
        ("torchvision", "resnet18", False),
        ("torchvision", "efficientnet_b0", True),
        ("timm", "resnet18", True),
        ("timm", "densenet121", False),
    ],
)
def test_stochastic_depth_is_searched_where_the_model_has_it(kind: str, name: str, has_drop_path: bool) -> None:
    trial = {"data": {"kind": "digits", "size": 32}, "model": {"kind": kind, "name": name}}
    searched = {key for key in experiment(trial=trial).space if key.startswith("model.")}
    assert searched == ({"model.dropout", "model.drop_path"} if has_drop_path else {"model.dropout"})


@pytest.mark.parametrize(
    ("name", "has_regions"), [("fasterrcnn_mobilenet_v3_large_320_fpn", True), ("fcos_resnet50_fpn", False)]
)
def test_of_torchvision_s_detectors_the_regions_are_searched_where_there_are_some(name: str, has_regions: bool) -> None:
    """The whole space would build the detector for each bound of each key, which takes a minute."""
    data = {"kind": "mnist_scenes", "source": "digits", "size": 64}
    parts = {"task": {"kind": "detection"}, "data": data, "model": {"kind": "torchvision", "name": name}}
    trial = TrialConfig.model_validate(parts)
    values = {key: tunable.values for key, tunable in _tunables(trial, "")}["model.regions"]
    assert bool(refusal(trial, {"model.regions": values["choice"][0]})) != has_regions


@pytest.mark.slow
def test_what_one_of_the_searched_models_cannot_have_is_not_searched() -> None:
    trial = {"data": {"kind": "digits", "size": 32}, "model": {"kind": "torchvision", "name": "efficientnet_b0"}}
    space = experiment({"auto": True, "model.name": {"choice": ["efficientnet_b0", "resnet18"]}}, trial).space
    assert "model.dropout" in space
    assert "model.drop_path" not in space, "resnet18 has none"


@pytest.mark.slow
def test_fine_tuning_has_smaller_learning_rates() -> None:
    data = {"kind": "digits", "size": 32}
    rates = []
    for weights in ("none", "DEFAULT"):
        model = {"kind": "torchvision", "name": "resnet18", "weights": weights}
        rates.append(experiment(trial={"data": data, "model": model}).space["optimizer.lr"].corners())
    new, tuned = rates
    assert tuned[0] < new[0]
    assert tuned[1] < new[1]


def test_keys_beside_auto_have_their_own_values() -> None:
    space = experiment({"auto": True, "optimizer.lr": {"grid": [0.1, 0.2]}}).space
    assert space["optimizer.lr"].corners() == [0.1, 0.2]
    assert "optimizer.momentum" in space
    assert list(experiment({"auto": False, "optimizer.lr": {"grid": [0.1, 0.2]}}).space) == ["optimizer.lr"]


@pytest.mark.slow
def test_the_fields_of_a_section_whose_kind_is_searched_are_left_to_the_file() -> None:
    space = experiment({"auto": True, "optimizer.kind": {"choice": ["sgd", "adamw"]}}).space
    assert [key for key in space if key.startswith("optimizer.")] == ["optimizer.kind"]
    assert "data.augment.crop" in space


def test_a_scheduler_that_changes_trials_changes_only_what_can_change() -> None:
    space = experiment(scheduler={"kind": "pbt"}).space
    assert "optimizer.lr" in space
    assert not {"model.width1", "model.width2"} & set(space), "their weights would not fit"


def test_the_resolved_file_names_every_key() -> None:
    spec = experiment()
    again = ExperimentSpec.model_validate(parse_yaml(spec.to_yaml()))
    assert again.space == spec.space
    assert "auto" not in parse_yaml(spec.to_yaml())["space"]


@pytest.mark.parametrize(
    ("space", "trial", "message"),
    [
        ({"auto": "yes"}, {}, "'yes' is not allowed"),
        ("auto", {"target": "json:loads"}, "a function of your own"),
    ],
)
def test_what_cannot_work_is_told(space: Any, trial: dict[str, Any], message: str) -> None:
    whole = {"name": "auto", "objective": {"metric": "loss", "mode": "min"}, "space": space}
    with pytest.raises(ValidationError, match=message):
        ExperimentSpec.model_validate(whole | {"trial": trial or TRIAL, "search": {"kind": "random", "trials": 2}})


def test_a_file_that_sets_everything_has_nothing_to_tune(write: Write) -> None:
    text = """\
name: fixed
objective: val_accuracy
trial:
  task: {kind: classification, loss: {kind: nll}}
  data: {kind: digits, augment: {crop: 1.0, color: 0.0, erase: 0.0, mixup: 0.0}}
  model: {kind: cnn, width1: 4, width2: 4, dropout: 0.0}
  optimizer: {kind: sgd, lr: 0.1, momentum: 0.9, weight_decay: 0.0}
  schedule: {kind: constant, warmup: 0}
space: auto
search: {kind: random, trials: 2}
"""
    file = write(text)
    with pytest.raises(UserError) as error:
        load(file)
    [problem] = error.value.problems
    assert "auto has nothing to tune" in problem.message
    assert problem.where == f"{file}:9:1"
    spec = load(file, ["space={auto: true, optimizer.lr: {loguniform: [0.01, 0.1]}}"])
    assert list(spec.space) == ["optimizer.lr"]


@pytest.mark.parametrize("member", get_args(get_args(OptimizerConfig)[0]), ids=lambda member: member.__name__)
def test_every_optimizer_says_what_of_it_is_worth_tuning(member: Any) -> None:
    kind = member.model_fields["kind"].default
    space = experiment(trial={"optimizer": {"kind": kind}}).space
    assert {"optimizer.lr", "optimizer.weight_decay"} <= set(space)
    low, high = space["optimizer.lr"].corners()
    assert low < member().lr < high


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "objective", "model"),
    [
        ("detection", "val_map", {"kind": "torchvision", "name": "ssdlite320_mobilenet_v3_large"}),
        ("instance_segmentation", "val_map", {"kind": "torchvision", "name": "maskrcnn_resnet50_fpn"}),
        ("semantic_segmentation", "val_miou", {"kind": "torchvision", "name": "lraspp_mobilenet_v3_large"}),
        ("semantic_segmentation", "val_miou", {"kind": "unet", "encoder": "mobilenet_v3_small"}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(reversed(value.values())),
)
def test_a_large_model_is_not_built_for_each_corner(
    task: str, objective: str, model: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    get_model = mock.Mock(wraps=models.get_model)
    monkeypatch.setattr(models, "get_model", get_model)
    trial = {"task": {"kind": task}, "data": {"kind": "mnist_scenes", "source": "digits"}, "model": model}
    space = experiment(trial=trial, objective=objective).space
    assert len(space) > 4
    assert get_model.call_count < 6  # there are hundreds of corners
