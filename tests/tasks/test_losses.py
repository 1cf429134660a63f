import math

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from tuner.tasks.losses import MSE, NLL, CrossEntropy, LossConfig, SmoothL1

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
CLASSES = torch.tensor([0, 2])
BY_HAND = (math.log(math.exp(2) + 2) - 2 + math.log(3)) / 2


def test_cross_entropy_by_hand() -> None:
    assert CrossEntropy()(LOGITS, CLASSES).item() == pytest.approx(BY_HAND)


def test_nll_of_log_probabilities_is_the_cross_entropy_of_their_logits() -> None:
    assert NLL()(LOGITS.log_softmax(dim=1), CLASSES).item() == pytest.approx(BY_HAND)


def test_label_smoothing_changes_what_is_trained_and_not_what_is_measured() -> None:
    smoothed = CrossEntropy(label_smoothing=0.3)
    # 0.7 of the mass on the class, and 0.1 on each of the three
    log_probabilities = LOGITS.log_softmax(dim=1)
    mass = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    assert smoothed(LOGITS, CLASSES).item() == pytest.approx(-(mass * log_probabilities).sum(dim=1).mean().item())
    assert smoothed.measure(LOGITS, CLASSES).item() == pytest.approx(BY_HAND)


@pytest.mark.parametrize(
    ("beta", "expected"),
    [
        (1.0, (0.5 * 0.5**2 + (3 - 0.5)) / 2),  # a square below beta, a line above
        (2.0, (0.5 * 0.5**2 / 2 + (3 - 1.0)) / 2),
        (4.0, (0.5 * 0.5**2 / 4 + 0.5 * 3**2 / 4) / 2),
    ],
)
def test_smooth_l1_by_hand(beta: float, expected: float) -> None:
    loss = SmoothL1(beta=beta)
    assert loss(torch.tensor([[0.5, -3.0]]), torch.zeros(1, 2)).item() == pytest.approx(expected)


def test_mse_by_hand() -> None:
    assert MSE()(torch.tensor([[1.0, -3.0]]), torch.zeros(1, 2)).item() == pytest.approx(5.0)


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "cross_entropy", "label_smoothing": 1.0},
        {"kind": "cross_entropy", "label_smoothing": -0.1},
        {"kind": "smooth_l1", "beta": 0.0},
        {"kind": "nll", "label_smoothing": 0.1},
        {"kind": "hinge"},
        {},
    ],
    ids=str,
)
def test_what_is_no_loss_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(LossConfig).validate_python(data)
