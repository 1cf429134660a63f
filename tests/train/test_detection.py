"""The training loop on boxes: what it learns, measures, and repeats to the last bit."""

from functools import partial
from pathlib import Path
from typing import Any

import epochs
import pytest
import torch
from pydantic import ValidationError

from tuner.errors import mistakes_in
from tuner.train.checkpoint import read_model
from tuner.train.evaluation import Diverged
from tuner.train.trial_config import TrialConfig

SCENES: dict[str, Any] = {
    "kind": "mnist_scenes",
    "source": "digits",
    "size": 32,
    "digits": 2,
    "largest": 24,
    "scenes": 120,
    "validation": 30,
    "test": 10,
    "batch_size": 16,
}


def trial(**parts: Any) -> TrialConfig:
    whole: dict[str, Any] = {
        "task": {"kind": "detection"},
        "data": SCENES,
        "model": {"kind": "yolo", "width": 8},
        "optimizer": {"kind": "adamw", "lr": 0.005},
        "precision": "float32",
        "epochs": 2,
        "seed": 3,
    }
    return TrialConfig.model_validate(whole | parts)


trained = partial(epochs.trained, objective="val_map")


def numbers(reports: list[dict[str, Any]]) -> str:
    """Reports as text, in which NaN is NaN."""
    return repr(reports)


@pytest.mark.slow
def test_it_learns_and_measures_what_it_names(tmp_path: Path) -> None:
    config = trial(epochs=5, ema={"decay": 0.9})
    reports = trained(config, tmp_path)
    assert set(config.metrics) - epochs.CLOCKS <= set(reports[0])
    assert "val_loss" not in reports[0] and {"val_map75", "val_ema_map", "val_map_small"} <= set(reports[0])
    assert reports[-1]["train_loss"] < 0.8 * reports[0]["train_loss"]
    assert 0 < reports[-1]["val_map50"] < 1 and reports[-1]["val_recall"] > 0.05
    signature, model = read_model(tmp_path / "5")
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 100, 6)
    [output] = signature.outputs.values()
    assert output.boxes and output.classes == tuple("0123456789") and output.predicts == "objects with boxes"


@pytest.mark.slow
def test_a_trial_gives_the_same_numbers_resumed(tmp_path: Path) -> None:
    config = trial(data=SCENES | {"augment": {"color": 0.2}})
    whole = trained(config, tmp_path / "whole")
    assert numbers(trained(config, tmp_path / "again")) == numbers(whole)
    assert numbers(trained(config, tmp_path / "resumed", resume=tmp_path / "whole" / "1")) == numbers(whole[1:])


@pytest.mark.slow
def test_micro_batches_and_accumulation_train_too(tmp_path: Path) -> None:
    [*_, last] = trained(trial(accumulate=2), tmp_path / "accumulated", micro_batches=2)
    assert last["train_loss"] > 0 and 0 <= last["val_map"] <= 1


@pytest.mark.slow
def test_boxes_may_be_one_of_several_heads(tmp_path: Path) -> None:
    heads = {
        "digits": {"target": "boxes", "loss": {"kind": "detector"}},
        "again": {"target": "boxes", "loss": {"kind": "detector"}, "weight": 0.1},
        "ground": {"target": "mask", "loss": {"kind": "pixel_cross_entropy"}},
    }
    objective = "val_digits_map50"
    [*_, last] = trained(trial(task={"kind": "multitask", "heads": heads}), tmp_path, objective=objective)
    assert {"val_digits_map50", "val_again_recall", "train_digits_loss", "val_ground_miou", "val_loss"} <= set(last)
    assert last["val_loss"] == last["val_ground_loss"], "boxes have none"


@pytest.mark.slow
def test_objects_may_have_masks(tmp_path: Path) -> None:
    augment = {"crop": 0.7, "mixup": 0.2, "cutmix": 1.0, "color": 0.2}
    config = trial(task={"kind": "instance_segmentation"}, data=SCENES | {"augment": augment}, epochs=4)
    whole = trained(config, tmp_path / "whole")
    assert whole[-1]["train_loss"] < 0.8 * whole[0]["train_loss"]
    assert {"val_map", "val_map75", "val_box_map50"} <= set(whole[0]) and whole[-1]["val_box_map50"] > 0
    assert numbers(trained(config, tmp_path / "resumed", resume=tmp_path / "whole" / "3")) == numbers(whole[3:])
    signature, model = read_model(tmp_path / "whole" / "4")
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 100, 6 + 32 * 32)
    [output] = signature.outputs.values()
    assert output.masks and output.predicts == "objects with boxes and masks"


def test_a_loss_that_is_not_finite_ends_the_trial(tmp_path: Path) -> None:
    config = trial(optimizer={"kind": "sgd", "lr": 1e9, "momentum": 0.9})
    with pytest.raises(Diverged, match="the loss became"):
        trained(config, tmp_path)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"model": {"kind": "cnn"}}, "the task needs boxes of objects"),
        ({"task": {"kind": "semantic_segmentation"}}, "the task needs no boxes, which a detector is for"),
        ({"task": {"kind": "detection"}, "model": {"kind": "unet"}}, "the task needs boxes of objects"),
        ({"task": {"kind": "detection", "target": "mask"}}, "detector does not fit the target 'mask'"),
        ({"distillation": {"teacher": "best"}}, "knows no teacher"),
    ],
)
def test_what_does_not_fit_is_said(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        trial(**parts)
    assert any(message in problem.message for problem in mistakes_in(caught.value))
