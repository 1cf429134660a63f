"""The moving average of the weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from epochs import trained
from pydantic import ValidationError
from torch import Tensor, nn

from tuner.train.checkpoint import read_model, read_state, read_trial
from tuner.train.ema import AveragedWeights
from tuner.train.trial_config import TrialConfig


def trial(**changes: Any) -> TrialConfig:
    parts: dict[str, Any] = {
        "data": {"kind": "digits", "batch_size": 32, "limit": 200},
        "model": {"kind": "resnet_small", "width": 4, "blocks": 1, "stages": 2, "dropout": 0.2},
        "optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.9},
        "ema": {"decay": 0.9},
        "precision": "float32",
        "epochs": 3,
        "seed": 7,
    }
    return TrialConfig.model_validate(parts | changes)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_average_is_that_of_all_steps_with_a_decay_that_grows() -> None:
    module = nn.BatchNorm1d(2)
    average = AveragedWeights(module, decay=0.3)
    average.begin_epoch(6, torch.device("cpu"))
    expected = torch.zeros(2)
    for step in range(6):
        with torch.no_grad():
            module.weight.fill_(step + 1.0)
        module(torch.randn(8, 2))
        average.update(torch.tensor([step]))
        average.advance()
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * module.weight.detach() if step else module.weight.detach().clone()
    state = average.state_dict()
    torch.testing.assert_close(state["weight"], expected)
    assert state["num_batches_tracked"] == 6, "a whole number is not averaged"
    assert not torch.equal(state["running_mean"], module.running_mean)  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with average.applied():
        assert same(dict(module.state_dict()), state)
    assert same(dict(module.state_dict()), before)


@pytest.mark.slow
def test_the_average_is_measured_beside_the_weights_and_changes_nothing_of_the_training(tmp_path: Path) -> None:
    config = trial()
    averaged, plain = trained(config, tmp_path / "averaged"), trained(trial(ema=None), tmp_path / "plain")
    assert all(name in config.metrics for name in ("val_accuracy", "val_ema_accuracy", "val_ema_loss"))
    for with_average, without in zip(averaged, plain, strict=True):
        assert {name: value for name, value in with_average.items() if "val_ema_" not in name} == without
        assert {name for name in with_average if "val_ema_" in name} == {n for n in config.metrics if "val_ema_" in n}
        assert with_average["val_ema_loss"] != with_average["val_loss"]


@pytest.mark.parametrize("objective", ["val_accuracy", "val_ema_accuracy"])
def test_a_checkpoint_s_model_is_what_the_objective_measured(objective: str, tmp_path: Path) -> None:
    reports = trained(trial(), tmp_path, objective=objective)
    _, model = read_model(tmp_path / "3")
    _, validation = read_trial(tmp_path / "3").data.load()
    found = (model(validation.images.float() / 255).argmax(dim=1) == validation.targets["label"]).double().mean().item()
    assert found == reports[-1][objective]
    loss = nn.functional.cross_entropy(model(validation.images.float() / 255), validation.targets["label"]).item()
    assert loss == pytest.approx(reports[-1][objective.replace("accuracy", "loss")], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["val_accuracy", "val_ema_accuracy"])
def test_it_resumes_as_if_never_stopped(objective: str, tmp_path: Path) -> None:
    straight = trained(trial(), tmp_path / "straight", objective=objective)
    for epoch in (1, 2):
        folder = tmp_path / str(epoch)
        resumed = trained(trial(), folder, resume=tmp_path / f"straight/{epoch}", objective=objective)
        assert resumed == straight[epoch:]
        again, before = read_state(folder / "3"), read_state(tmp_path / "straight/3")
        assert same(again[0], before[0]) and again[1]["average"]["steps"] == before[1]["average"]["steps"] == 21
        assert again[1].keys() == before[1].keys()
        others = [state.get("trained") or state["average"]["weights"] for state in (again[1], before[1])]
        assert same(*others) and not same(others[0], again[0])


@pytest.mark.slow
def test_a_trial_begins_an_average_where_the_checkpoint_has_none_and_leaves_one_out(tmp_path: Path) -> None:
    trained(trial(ema=None), tmp_path / "plain")
    trained(trial(), tmp_path / "averaged", objective="val_ema_accuracy")
    assert trial().why_not_resumable_as(trial(ema=None)) == ""
    [_, last] = trained(trial(), tmp_path / "begun", resume=tmp_path / "plain/1")
    assert "val_ema_accuracy" in last
    left_out = trained(trial(ema=None), tmp_path / "left out", resume=tmp_path / "averaged/1")
    straight = trained(trial(ema=None), tmp_path / "straight", resume=tmp_path / "plain/1")
    assert left_out == straight


@pytest.mark.parametrize("name", ["ema", "ema_digit"])
def test_a_head_whose_metrics_look_like_those_of_the_average_is_refused(name: str) -> None:
    heads = {name: {"target": "label", "loss": {"kind": "cross_entropy"}}}
    with pytest.raises(ValidationError, match=f"ema: ema_ begins the names of the .* of a head: {name}"):
        trial(task={"kind": "multitask", "heads": heads}, model={"kind": "multitask_cnn"})
    trial(task={"kind": "multitask", "heads": heads}, model={"kind": "multitask_cnn"}, ema=None)
    heads = {"emax": heads[name]}
    trial(task={"kind": "multitask", "heads": heads}, model={"kind": "multitask_cnn"})
