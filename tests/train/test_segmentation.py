"""The training loop on masks: what it learns, measures, and repeats to the last bit."""

from functools import partial
from pathlib import Path
from typing import Any

import epochs
import pytest
import torch
from torch import nn

from tuner.train.checkpoint import read_model
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
        "task": {"kind": "semantic_segmentation"},
        "data": SCENES,
        "model": {"kind": "unet", "width": 8, "levels": 3},
        "optimizer": {"kind": "adamw", "lr": 0.01},
        "precision": "float32",
        "epochs": 2,
        "seed": 3,
    }
    return TrialConfig.model_validate(whole | parts)


trained = partial(epochs.trained, objective="val_miou")


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["pixel_cross_entropy", "pixel_focal", "pixel_dice"])
def test_it_learns_and_measures_what_it_names(tmp_path: Path, loss: str) -> None:
    config = trial(task={"kind": "semantic_segmentation", "loss": {"kind": loss}}, epochs=4)
    reports = trained(config, tmp_path)
    assert set(config.metrics) - epochs.CLOCKS <= set(reports[0])
    assert reports[-1]["val_loss"] < reports[0]["val_loss"]
    assert reports[-1]["val_accuracy"] > 0.6 and reports[-1]["val_miou"] > 0.07
    signature, model = read_model(tmp_path / "4")
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 11, 32, 32)
    [output] = signature.outputs.values()
    assert output.per_pixel and output.classes[:2] == ("background", "0")


@pytest.mark.slow
def test_a_trial_gives_the_same_numbers_resumed_and_in_micro_batches(tmp_path: Path) -> None:
    config = trial(data=SCENES | {"augment": {"shift": 3, "color": 0.2}})
    whole = trained(config, tmp_path / "whole")
    assert trained(config, tmp_path / "again") == whole
    assert trained(config, tmp_path / "resumed", resume=tmp_path / "whole" / "1") == whole[1:]
    without_statistics = trial(model={"kind": "import", "target": "own_code:PerPixel", "args": {"classes": 11}})
    one, two = (
        trained(without_statistics, tmp_path / str(number), micro_batches=number)[-1]["val_loss"] for number in (1, 2)
    )
    assert one == pytest.approx(two, abs=1e-5)


@pytest.mark.slow
def test_classes_may_weigh_by_their_pixels(tmp_path: Path) -> None:
    task = {"kind": "semantic_segmentation", "loss": {"kind": "pixel_cross_entropy", "class_weights": "balanced"}}
    plain, weighted = (
        trained(trial(**parts), tmp_path / name)[-1] for name, parts in (("a", {}), ("b", {"task": task}))
    )
    assert weighted["val_miou"] != plain["val_miou"]


@pytest.mark.slow
def test_a_mask_may_be_one_of_several_heads(tmp_path: Path) -> None:
    heads = {
        "digits": {"target": "mask", "loss": {"kind": "pixel_cross_entropy"}, "hidden": 4},
        "again": {"target": "mask", "loss": {"kind": "pixel_dice"}, "weight": 0.5},
    }
    objective = "val_digits_miou"
    [*_, last] = trained(trial(task={"kind": "multitask", "heads": heads}), tmp_path, objective=objective)
    assert {"val_digits_miou", "val_again_boundary_f", "train_again_accuracy"} <= set(last)


def test_a_teacher_of_masks_teaches_pixels() -> None:
    from tuner.tasks.losses import PixelCrossEntropy

    teacher, student = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = PixelCrossEntropy()
    own, goal = student.log_softmax(dim=1), teacher.log_softmax(dim=1)
    expected = nn.functional.kl_div(own, goal, log_target=True, reduction="sum") / (2 * 4 * 4)
    assert loss.distance(student, teacher, 1.0).item() == pytest.approx(expected.item())
