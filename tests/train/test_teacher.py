"""A model that learns from a trained one: real checkpoints, and trainings on a few digits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tuner.errors import UserError
from tuner.interfaces import Batch, Mixed
from tuner.objectives import Objective
from tuner.train.checkpoint import Save
from tuner.train.distillation import Distilled
from tuner.train.loop import fit
from tuner.train.teacher import KEY, load_teacher
from tuner.train.trial_config import TrialConfig

DIGITS: dict[str, Any] = {"kind": "digits", "batch_size": 32, "limit": 128}
HEADS = {
    "digit": {"target": "label", "loss": {"kind": "cross_entropy"}},
    "position": {"target": "position", "loss": {"kind": "mse"}, "weight": 0.5},
}


def trial(**parts: Any) -> TrialConfig:
    whole = {"data": DIGITS, "model": {"kind": "mlp", "layers": 1, "width": 8}, "precision": "float32", "seed": 1}
    return TrialConfig.model_validate(whole | parts)


def learner(**settings: Any) -> TrialConfig:
    parts = {name: settings.pop(name) for name in ("data", "task", "model") if name in settings}
    return trial(distillation={"teacher": "any"} | settings, **parts)


def saved(folder: Path, config: TrialConfig) -> str:
    """The checkpoint of a model with new weights."""
    folder.mkdir()
    torch.manual_seed(0)
    Save(config, config.build_model().state_dict(), {}, {"epoch": 1})(folder)
    return str(folder)


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    return saved(tmp_path / "teacher", trial(model={"kind": "cnn", "width1": 4, "width2": 8, "hidden": 16}))


def trained(config: TrialConfig, teacher: nn.Module | None, micro_batches: int = 1) -> dict[str, Tensor]:
    """The weights of a model after an epoch."""
    weights: dict[str, Tensor] = {}

    def report(metrics: dict[str, Any], save: Save) -> None:
        weights.update(save.snapshot().weights)

    objective = Objective(metric="val_loss", mode="min")
    device = torch.device("cpu")
    fit(config, objective, report, device=device, teacher=teacher, micro_batches=micro_batches)
    return weights


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    return max((first[name] - second[name]).abs().max().item() for name in first)


def test_it_is_loaded_once_and_not_trained(teacher: str) -> None:
    loaded = load_teacher(teacher, learner())
    assert loaded is not None and loaded is load_teacher(teacher, learner(alpha=0.1))
    assert not loaded.training and not any(each.requires_grad for each in loaded.parameters())
    before = {name: value.clone() for name, value in loaded.state_dict().items()}
    trained(learner(), loaded)
    assert not loaded.training and distance(before, loaded.state_dict()) == 0
    assert load_teacher(teacher, trial()) is None


def test_alpha_is_the_share_of_the_teacher_in_the_loss(teacher: str) -> None:
    loaded = load_teacher(teacher, learner())
    assert loaded is not None
    mixed = Mixed({"label": torch.arange(6).flip(0)}, torch.tensor(0.3))
    batch = Batch(torch.rand(6, 1, 8, 8), {"label": torch.arange(6)}, mixed)
    output = torch.randn(6, 10)
    plain = trial().task.training_loss(lambda inputs: output, batch)[0]
    whole = trial().task.distance(output, loaded(batch.inputs), 3.0)
    for alpha in (0.25, 1.0):
        task = learner(alpha=alpha, temperature=3.0).training_task(loaded)
        assert isinstance(task, Distilled)
        loss, outputs = task.training_loss(lambda inputs: output, batch)
        assert outputs is output
        torch.testing.assert_close(loss, (1 - alpha) * plain + alpha * whole)
    with pytest.raises(AssertionError, match="has a teacher"):
        learner().training_task()


def test_the_teacher_alone_needs_no_labels(teacher: str) -> None:
    smoothed = {"kind": "classification", "loss": {"kind": "cross_entropy", "label_smoothing": 0.5}}
    loaded = load_teacher(teacher, learner())
    alone = trained(learner(alpha=1.0), loaded)
    assert distance(alone, trained(learner(alpha=1.0, task=smoothed), loaded)) == 0
    assert distance(alone, trained(learner(alpha=0.5), loaded)) > 0


def test_micro_batches_and_mixed_images_learn_from_it_as_batches_do(teacher: str) -> None:
    config = learner(data=DIGITS | {"augment": {"mixup": 0.4}})
    loaded = load_teacher(teacher, config)
    assert distance(trained(config, loaded), trained(config, loaded, micro_batches=4)) < 1e-5


def test_each_head_learns_from_that_of_the_teacher(tmp_path: Path) -> None:
    parts = {"task": {"kind": "multitask", "heads": HEADS}, "data": DIGITS | {"canvas": 12}}
    model = {"kind": "multitask_cnn"}
    config = learner(**parts, model=model)
    loaded = load_teacher(saved(tmp_path / "heads", trial(**parts, model=model)), config)
    assert loaded is not None
    outputs = {"digit": torch.randn(4, 10), "position": torch.randn(4, 2)}
    wanted = loaded(torch.rand(4, 1, 12, 12))
    heads = config.task.named_heads
    expected = sum(heads[name].weight * heads[name].loss.distance(outputs[name], wanted[name], 2.0) for name in heads)
    torch.testing.assert_close(config.task.distance(outputs, wanted, 2.0), expected)
    trained(config, loaded)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"data": DIGITS | {"canvas": 12}}, "takes images of 8x8 with 1 channels, and those of the trial are 12x12"),
        (
            {"task": {"kind": "multitask", "heads": {"digit": HEADS["digit"]}}, "model": {"kind": "multitask_cnn"}},
            "the teacher has the heads one output, and the task digit",
        ),
    ],
    ids=["another size", "other heads"],
)
def test_a_teacher_that_does_not_fit_is_told(teacher: str, parts: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        load_teacher(teacher, learner(**parts))
    assert all(problem.key == KEY and problem.hint for problem in error.value.problems)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ('"size": 11', "it has 11 classes, and the trial 10"),
        ('"multilabel": true', "it predicts any number of classes, and the trial one class"),
        ('"unit": "mm"', "it predicts values in mm, and the trial one class"),
        ('"classes": ["0", "2"]', "its class 1 is '2', and that of the trial '1'"),
    ],
)
def test_a_teacher_of_other_classes_is_told(teacher: str, change: str, told: str) -> None:
    import json

    signature = Path(teacher, "signature.json")
    said = json.loads(signature.read_text())
    name, value = next(iter(json.loads("{" + change + "}").items()))
    names = said["outputs"][""]["classes"]
    said["outputs"][""][name] = [*value, *names[2:]] if name == "classes" else value
    if name == "size":
        said["outputs"][""]["classes"] = []
        weights = torch.load(Path(teacher, "model.pt"))
        for key in list(weights)[-2:]:
            weights[key] = torch.cat([weights[key], weights[key][:1]])
        torch.save(weights, Path(teacher, "model.pt"))
    signature.write_text(json.dumps(said))
    with pytest.raises(UserError, match=told):
        load_teacher(teacher, learner())


def test_a_teacher_that_is_gone_or_damaged_is_told(tmp_path: Path, teacher: str) -> None:
    with pytest.raises(UserError, match="the teacher cannot be read") as error:
        load_teacher(str(tmp_path / "none"), learner())
    assert "start a new job" in error.value.problems[0].hint
    Path(teacher, "model.pt").write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        load_teacher(teacher, learner())


@pytest.mark.parametrize("settings", [{"alpha": 0}, {"alpha": 1.1}, {"temperature": 0}, {"teacher": ""}], ids=str)
def test_settings_that_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        learner(**settings)
