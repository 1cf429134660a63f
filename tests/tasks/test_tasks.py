"""What is particular to one task. What every task must do stands in test_contracts.py."""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from tuner.data import Digits
from tuner.errors import Mistakes
from tuner.interfaces import Batch, ClassCounts, Mixed, Output, Outputs, Target, Targets, WithAuxiliary
from tuner.tasks import Classification, Multilabel, Multitask, TaskConfig
from tuner.tasks.head import Head
from tuner.tasks.losses import MSE, NLL, BinaryCrossEntropy, CrossEntropy, SmoothL1

OFFERED = {"label": Target(10), "position": Target(2, unit="pixels"), "tags": Target(3, multilabel=True)}
LABELS = torch.tensor([3, 1, 4, 1])
POSITIONS = torch.tensor([[0.0, 1.0], [2.0, -2.0], [0.5, 0.0], [-3.0, 4.0]])
TARGETS = {"label": LABELS, "position": POSITIONS}


def two_heads(weight: float = 1.0, smoothing: float = 0.0) -> Multitask:
    return Multitask(
        heads={
            "digit": Head(target="label", loss=CrossEntropy(label_smoothing=smoothing), hidden=16),
            "position": Head(target="position", loss=SmoothL1(), hidden=0, weight=weight),
        }
    )


def two_outputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "digit": torch.randn(4, 10, generator=generator),
        "position": torch.randn(4, 2, generator=generator),
    }


def training_loss(task: TaskConfig, outputs: Outputs, targets: Targets = TARGETS) -> torch.Tensor:
    loss, returned = task.training_loss(lambda inputs: outputs, Batch(torch.zeros(4, 1, 8, 8), targets))
    assert returned is outputs
    return loss


def measured(task: TaskConfig, outputs: Outputs, *, training: bool = False) -> dict[str, float]:
    meter = task.meter(training=training)
    meter.update(outputs, TARGETS)
    return meter.compute()


def test_classification_asks_for_one_output_that_leaves_its_width_to_the_model() -> None:
    assert Classification().outputs(OFFERED) == {"": Output(10)}
    assert Classification(loss=NLL()).outputs(OFFERED) == {"": Output(10, log_probabilities=True)}


def test_the_default_multitask_heads() -> None:
    assert Multitask().outputs(OFFERED) == {
        "digit": Output(10, hidden=128, log_probabilities=True),
        "aux": Output(10, hidden=0),
    }


def test_metrics_are_named_by_head() -> None:
    classes = ("loss", "accuracy", "precision", "recall", "f1", "accuracy_top5", "ece")
    assert Classification().metrics() == Classification().metrics(OFFERED) == classes
    few = Classification().metrics({"label": Target(5)})
    assert few == tuple(name for name in classes if name != "accuracy_top5")
    labels = ("loss", "precision", "recall", "f1", "f1_micro", "map", "auroc")
    assert Multilabel(target="tags").metrics(OFFERED) == labels and Multilabel().train_metrics == ("loss", "f1")
    assert Classification().train_metrics == ("loss", "accuracy")
    task = two_heads()
    expected = ("loss", *(f"digit_{name}" for name in classes), "position_loss", "position_error")
    assert task.metrics(OFFERED) == expected
    assert task.train_metrics == ("loss", "digit_loss", "digit_accuracy", "position_loss", "position_error")


def test_the_heads_losses_are_added_by_their_weights() -> None:
    outputs = two_outputs()
    digit = F.cross_entropy(outputs["digit"], LABELS)
    position = F.smooth_l1_loss(outputs["position"], POSITIONS)
    for weight in (0.0, 0.25, 3.0):
        torch.testing.assert_close(training_loss(two_heads(weight), outputs), digit + weight * position)
    assert measured(two_heads(), outputs)["loss"] == pytest.approx((digit + position).item())


@pytest.mark.parametrize("training", [False, True])
def test_weights_and_label_smoothing_change_what_is_trained_and_not_what_is_measured(training: bool) -> None:
    outputs = two_outputs()
    plain, other = two_heads(), two_heads(weight=7.0, smoothing=0.4)
    assert measured(plain, outputs, training=training) == measured(other, outputs, training=training)
    assert training_loss(plain, outputs) != training_loss(other, outputs)


def test_one_class_each() -> None:
    outputs: Outputs = F.one_hot(LABELS, 10).float() * 50
    metrics = measured(Classification(), outputs)
    assert metrics["loss"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["accuracy"] == 1.0
    assert metrics["f1"] == 1.0  # macro means are over the three classes that occur here, not over all ten


def test_the_confusion_matrix_of_each_head_over_classes() -> None:
    outputs = two_outputs() | {"digit": F.one_hot(torch.tensor([3, 1, 4, 0]), 10).float()}
    meter = two_heads().meter()
    meter.update(outputs, TARGETS)
    matrices = meter.confusion()
    assert list(matrices) == ["digit"]
    matrix = matrices["digit"]
    assert (matrix[3][3], matrix[1][1], matrix[4][4], matrix[1][0]) == (1, 1, 1, 1)
    only = Classification().meter()
    only.update(outputs["digit"], TARGETS)
    assert list(only.confusion()) == ["label"] == list(only.by_class())
    training = two_heads().meter(training=True)
    training.update(outputs, TARGETS)
    assert training.confusion() == {} == training.by_class()


def test_meters_of_two_processes_measure_together_what_one_does() -> None:
    outputs = two_outputs()
    halves = [two_heads().meter() for _ in range(2)]
    for half, meter in enumerate(halves):
        part = slice(2 * half, 2 * half + 2)
        meter.update({name: each[part] for name, each in outputs.items()}, {n: t[part] for n, t in TARGETS.items()})
    halves[0].merge(halves[1])
    whole = two_heads().meter()
    whole.update(outputs, TARGETS)
    assert halves[0].compute() == pytest.approx(whole.compute())
    assert halves[0].confusion() == whole.confusion()


@pytest.mark.parametrize(
    ("head", "key", "message", "hint"),
    [
        (Head(target="lable", loss=NLL()), "heads.h.target", "'lable'", "did you mean label?"),
        (Head(target="label", loss=MSE()), "heads.h.loss", "mse does not fit", "cross_entropy, focal, nll"),
        (Head(target="position", loss=NLL()), "heads.h.loss", "2 values in pixels", "smooth_l1, mse"),
        (Head(target="tags", loss=NLL()), "heads.h.loss", "any number of 3 classes", "{kind: multilabel}"),
        (
            Head(target="label", loss=NLL(class_weights=(1, 2))),
            "heads.h.loss.class_weights",
            "has 2 weights for 10 classes",
            "balanced",
        ),
        (
            Head(target="tags", loss=BinaryCrossEntropy(pos_weight=(1, 2))),
            "heads.h.loss.pos_weight",
            "has 2 weights for 3 classes",
            "one number for all",
        ),
    ],
)
def test_a_head_that_does_not_fit_the_data(head: Head, key: str, message: str, hint: str) -> None:
    with pytest.raises(Mistakes) as error:
        Multitask(heads={"h": head}).outputs(OFFERED)
    [problem] = error.value.problems
    assert problem.key == key and message in problem.message and hint in problem.hint


def test_all_heads_that_do_not_fit_are_told_at_once() -> None:
    heads = {"a": Head(target="label", loss=MSE()), "b": Head(target="colour", loss=NLL())}
    with pytest.raises(Mistakes) as error:
        Multitask(heads=heads).outputs(OFFERED)
    assert [problem.key for problem in error.value.problems] == ["heads.a.loss", "heads.b.target"]


def test_a_position_without_a_canvas_says_what_gives_one() -> None:
    with pytest.raises(Mistakes) as error:
        two_heads().outputs(Digits().targets)
    assert "data.canvas" in error.value.problems[0].hint
    assert set(two_heads().outputs(Digits(canvas=12).targets)) == {"digit", "position"}


@pytest.mark.parametrize(
    "heads",
    [
        {},
        {"digit": {"target": "label", "loss": {"kind": "nll"}, "weight": 0}},
        {"digit": {"target": "label", "loss": {"kind": "nll"}, "weight": -1}},
        {"digit": {"target": "label", "loss": {"kind": "nll"}, "hidden": -1}},
        {"digit": {"target": "label", "loss": {"kind": "nll"}, "weight": math.inf}},
        {"a digit": {"target": "label", "loss": {"kind": "nll"}}},
        {"a.b": {"target": "label", "loss": {"kind": "nll"}}},
        {"": {"target": "label", "loss": {"kind": "nll"}}},
    ],
    ids=str,
)
def test_heads_that_are_refused(heads: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Multitask.model_validate({"heads": heads})


def test_classification_refuses_a_loss_over_values() -> None:
    with pytest.raises(ValidationError):
        Classification.model_validate({"loss": {"kind": "mse"}})


def test_mixed_images_have_the_loss_of_mixed_labels() -> None:
    """Binary cross-entropy is linear in the labels."""
    output, own, other = torch.randn(4, 3), torch.randint(2, (4, 3)).float(), torch.randint(2, (4, 3)).float()
    task = Multilabel(target="tags", loss=BinaryCrossEntropy(pos_weight=2.0))
    batch = Batch(torch.zeros(4, 1, 8, 8), {"tags": own}, Mixed({"tags": other}, share=torch.tensor(0.3)))
    loss, _ = task.training_loss(lambda inputs: output, batch)
    weight = torch.tensor(2.0)
    expected = F.binary_cross_entropy_with_logits(output, 0.3 * own + 0.7 * other, pos_weight=weight)
    torch.testing.assert_close(loss, expected)


def test_a_multitask_model_may_have_a_head_for_each_kind_of_target() -> None:
    task = Multitask(
        heads={
            "digit": Head(target="label", loss=CrossEntropy()),
            "tags": Head(target="tags", loss=BinaryCrossEntropy()),
            "position": Head(target="position", loss=MSE()),
        }
    )
    assert task.outputs(OFFERED) == {"digit": Output(10), "tags": Output(3), "position": Output(2)}
    assert {"digit_accuracy", "tags_f1_micro", "position_error"} <= set(task.metrics(OFFERED))


def test_each_head_gets_the_weights_of_its_target() -> None:
    counts = {"label": ClassCounts((3, 1), samples=4), "tags": ClassCounts((1, 2), samples=4)}
    task = Multitask(
        heads={
            "digit": Head(target="label", loss=CrossEntropy(class_weights="balanced"), weight=2.0),
            "aux": Head(target="label", loss=NLL()),
            "tags": Head(target="tags", loss=BinaryCrossEntropy(pos_weight="balanced")),
            "position": Head(target="position", loss=MSE()),
        }
    )
    given: Any = task.weighted(lambda: counts, balance=False)
    assert given.heads["digit"].loss.class_weights == pytest.approx((2 / 3, 2))
    assert given.heads["digit"].weight == 2.0
    assert given.heads["tags"].loss.pos_weight == (3.0, 1.0)
    assert given.heads["aux"] == task.heads["aux"] and given.heads["position"] == task.heads["position"]
    balanced: Any = task.weighted(lambda: counts, balance=True)
    assert balanced.heads["aux"].loss.class_weights == pytest.approx((2 / 3, 2))


def test_a_task_without_weights_counts_no_classes() -> None:
    def count() -> dict[str, ClassCounts]:
        raise AssertionError("the classes are counted")

    for task in (Classification(), Multilabel(), two_heads()):
        assert task.weighted(count, balance=False) is task
    single = Multilabel(target="tags").weighted(lambda: {"tags": ClassCounts((1,), samples=4)}, balance=True)
    assert single.loss == BinaryCrossEntropy(pos_weight=(3.0,)) and single.target == "tags"


def test_auxiliary_outputs_add_their_loss_by_their_weight() -> None:
    task, outputs = two_heads(), two_outputs()
    other = {name: value + 1.5 * value.roll(1, 0) for name, value in outputs.items()}
    batch = Batch(
        torch.zeros(4, 1), TARGETS, Mixed({name: each.flip(0) for name, each in TARGETS.items()}, torch.tensor(0.7))
    )
    of, of_other = (task.training_loss(lambda _, each=each: each, batch)[0] for each in (outputs, other))
    loss, returned = task.training_loss(lambda _: WithAuxiliary(outputs, (other, outputs), 0.3), batch)
    assert torch.isclose(loss, of + 0.3 * of_other + 0.3 * of)
    assert returned is outputs and task.predict(lambda _: WithAuxiliary(outputs, (), 0.3), batch) is outputs
