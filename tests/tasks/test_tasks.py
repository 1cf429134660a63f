"""What is particular to one task. What every task must do stands in test_contracts.py."""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from tuner.data import Digits
from tuner.errors import Mistakes
from tuner.interfaces import Output, Outputs, Target
from tuner.tasks import Classification, Multitask
from tuner.tasks.head import Head
from tuner.tasks.losses import MSE, NLL, CrossEntropy, SmoothL1

OFFERED = {"label": Target(10), "position": Target(2, unit="pixels")}
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


def test_classification_asks_for_one_output_that_leaves_its_width_to_the_model() -> None:
    assert Classification().outputs(OFFERED) == {"": Output(10)}
    assert Classification(loss=NLL()).outputs(OFFERED) == {"": Output(10, log_probabilities=True)}


def test_the_default_multitask_heads() -> None:
    assert Multitask().outputs(OFFERED) == {
        "digit": Output(10, hidden=128, log_probabilities=True),
        "aux": Output(10, hidden=0),
    }


def test_metrics_are_named_by_head() -> None:
    classes = ("loss", "accuracy", "precision", "recall", "f1")
    assert Classification().metrics == classes
    assert Classification().train_metrics == ("loss", "accuracy")
    task = two_heads()
    expected = ("loss", *(f"digit_{name}" for name in classes), "position_loss", "position_error")
    assert task.metrics == expected
    assert task.train_metrics == ("loss", "digit_loss", "digit_accuracy", "position_loss", "position_error")


def test_the_heads_losses_are_added_by_their_weights() -> None:
    outputs = two_outputs()
    digit = F.cross_entropy(outputs["digit"], LABELS)
    position = F.smooth_l1_loss(outputs["position"], POSITIONS)
    for weight in (0.0, 0.25, 3.0):
        torch.testing.assert_close(two_heads(weight).training_loss(outputs, TARGETS), digit + weight * position)
    assert two_heads().measure(outputs, TARGETS)["loss"] == pytest.approx((digit + position).item())


@pytest.mark.parametrize("training", [False, True])
def test_weights_and_label_smoothing_change_what_is_trained_and_not_what_is_measured(training: bool) -> None:
    outputs = two_outputs()
    plain, other = two_heads(), two_heads(weight=7.0, smoothing=0.4)
    assert plain.measure(outputs, TARGETS, training=training) == other.measure(outputs, TARGETS, training=training)
    assert plain.training_loss(outputs, TARGETS) != other.training_loss(outputs, TARGETS)


def test_one_class_each() -> None:
    outputs: Outputs = F.one_hot(LABELS, 10).float() * 50
    measured = Classification().measure(outputs, TARGETS)
    assert measured["loss"] == pytest.approx(0.0, abs=1e-6)
    assert measured["accuracy"] == 1.0
    # Macro means are over all ten classes, and three of them occur here.
    assert measured["f1"] == pytest.approx(0.3)


def test_the_confusion_matrix_of_each_head_over_classes() -> None:
    outputs = two_outputs() | {"digit": F.one_hot(torch.tensor([3, 1, 4, 0]), 10).float()}
    matrices = two_heads().confusion(outputs, TARGETS)
    assert list(matrices) == ["digit"]
    matrix = matrices["digit"]
    assert (matrix[3][3], matrix[1][1], matrix[4][4], matrix[1][0]) == (1, 1, 1, 1)
    assert list(Classification().confusion(outputs["digit"], TARGETS)) == ["label"]


@pytest.mark.parametrize(
    ("head", "key", "message", "hint"),
    [
        (Head(target="lable", loss=NLL()), "heads.h.target", "'lable'", "did you mean label?"),
        (Head(target="label", loss=MSE()), "heads.h.loss", "mse does not fit", "cross_entropy, nll"),
        (Head(target="position", loss=NLL()), "heads.h.loss", "2 values in pixels", "smooth_l1, mse"),
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
