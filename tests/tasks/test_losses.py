import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch.nn import functional as F

from tuner.interfaces import ClassCounts
from tuner.tasks.losses import (
    MSE,
    NLL,
    BinaryCrossEntropy,
    BinaryFocal,
    ClassLoss,
    CrossEntropy,
    Focal,
    LossConfig,
    SmoothL1,
)
from tuner.tasks.losses.base import on_device

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
CLASSES = torch.tensor([0, 2])
BY_HAND = (math.log(math.exp(2) + 2) - 2 + math.log(3)) / 2


def test_cross_entropy_by_hand() -> None:
    assert CrossEntropy()(LOGITS, CLASSES).item() == pytest.approx(BY_HAND)


def test_focal_loss_by_hand() -> None:
    first, second = math.exp(2) / (math.exp(2) + 2), 1 / 3  # the probabilities of the true classes
    for gamma in (0.0, 0.5, 2.0):
        expected = -((1 - first) ** gamma * math.log(first) + (1 - second) ** gamma * math.log(second)) / 2
        assert Focal(gamma=gamma)(LOGITS, CLASSES).item() == pytest.approx(expected)
        assert Focal(gamma=gamma).measure(LOGITS, CLASSES).item() == pytest.approx(BY_HAND)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
def test_focal_loss_has_a_gradient_where_the_classes_are_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [200.0, -200.0]], requires_grad=True)
    loss = Focal(gamma=gamma)(logits, torch.tensor([0, 1]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(200) and logits.grad is not None and logits.grad.isfinite().all()


def test_nll_of_log_probabilities_is_the_cross_entropy_of_their_logits() -> None:
    assert NLL()(LOGITS.log_softmax(dim=1), CLASSES).item() == pytest.approx(BY_HAND)


def test_label_smoothing_changes_what_is_trained_and_not_what_is_measured() -> None:
    smoothed = CrossEntropy(label_smoothing=0.3)
    # 0.7 of the mass on the class, and 0.1 on each of the three
    log_probabilities = LOGITS.log_softmax(dim=1)
    mass = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    assert smoothed(LOGITS, CLASSES).item() == pytest.approx(-(mass * log_probabilities).sum(dim=1).mean().item())
    assert smoothed.measure(LOGITS, CLASSES).item() == pytest.approx(BY_HAND)


COUNTS = ClassCounts((6, 3, 1), samples=10)
BALANCED = (10 / 18, 10 / 9, 10 / 3)  # 10 / (3 classes * count)


@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(label_smoothing=0.2), NLL(), Focal(gamma=1.5)])
@pytest.mark.parametrize("weights", ["balanced", (5.0, 10.0, 30.0)], ids=str)
def test_class_weights_are_scaled_to_a_mean_of_1_over_the_training_images(loss: ClassLoss, weights: Any) -> None:
    weighted = loss.model_copy(update={"class_weights": weights}).weighted(COUNTS, balance=False)
    assert weighted.class_weights == pytest.approx(BALANCED)
    assert weighted.weighted(COUNTS, balance=True) == weighted
    assert loss.weighted(COUNTS, balance=False) == loss
    assert loss.weighted(COUNTS, balance=True).class_weights == pytest.approx(BALANCED)
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(10, 3, generator=generator).log_softmax(dim=1)
    target = torch.tensor([0] * 6 + [1] * 3 + [2])
    single = [loss(output[i : i + 1], target[i : i + 1]).item() * BALANCED[target[i]] for i in range(10)]
    if not getattr(loss, "label_smoothing", 0):  # PyTorch weighs the smoothed part by each class of its own
        assert weighted(output, target).item() == pytest.approx(sum(single) / 10)
    assert weighted.measure(output, target) == loss.measure(output, target)
    parts = [len(part) / 10 * weighted(output[part], target[part]) for part in torch.arange(10).chunk(3)]
    torch.testing.assert_close(sum(parts), weighted(output, target))


def test_weighted_cross_entropy_is_that_of_pytorch_but_for_its_mean() -> None:
    loss = CrossEntropy(class_weights=(1, 2, 3), label_smoothing=0.1)
    weights = torch.tensor([1.0, 2.0, 3.0])
    expected = F.cross_entropy(LOGITS, CLASSES, weights, label_smoothing=0.1, reduction="sum") / 2
    torch.testing.assert_close(loss(LOGITS, CLASSES), expected)


def test_a_class_without_training_images_has_no_balanced_weight() -> None:
    counts = ClassCounts((4, 0, 4), samples=8)
    assert CrossEntropy(class_weights="balanced").weighted(counts, balance=False).class_weights == (1.0, 0.0, 1.0)
    loss = BinaryCrossEntropy(pos_weight="balanced").weighted(ClassCounts((2, 0, 8), samples=8), balance=False)
    assert loss.pos_weight == (3.0, 1.0, 1.0)
    assert BinaryCrossEntropy().weighted(ClassCounts((2, 4), samples=8), balance=True).pos_weight == (3.0, 1.0)
    assert BinaryCrossEntropy(pos_weight=2).weighted(COUNTS, balance=True).pos_weight == 2
    assert MSE().weighted(COUNTS, balance=True) == MSE() and not MSE().can_balance


def test_the_distance_to_a_teacher_by_hand() -> None:
    wanted = torch.tensor([[1.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    for temperature in (1.0, 4.0):
        expected, of_labels = 0.0, 0.0
        for own, goal in zip(LOGITS.tolist(), wanted.tolist(), strict=True):
            powers = [[math.exp(each / temperature) for each in row] for row in (own, goal)]
            p, q = ([each / sum(row) for each in row] for row in powers)
            expected += sum(b * math.log(b / a) for a, b in zip(p, q, strict=True)) / 2
            p, q = ([each / (1 + each) for each in row] for row in powers)
            pairs = [pair for a, b in zip(p, q, strict=True) for pair in ((a, b), (1 - a, 1 - b))]
            of_labels += sum(b * math.log(b / a) for a, b in pairs) / 6
        for loss in (CrossEntropy(label_smoothing=0.1), Focal(), NLL(class_weights=(1, 2, 3))):
            assert loss.distance(LOGITS, wanted, temperature).item() == pytest.approx(
                temperature**2 * expected, rel=1e-5
            )
        measured = BinaryCrossEntropy(pos_weight=2).distance(LOGITS, wanted, temperature)
        assert measured.item() == pytest.approx(temperature**2 * of_labels, rel=1e-5)
    assert MSE().distance(LOGITS, wanted, 4.0) == MSE()(LOGITS, wanted)


LABELS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize("pos_weight", [1.0, 3.0, (2.0, 1.0, 0.5)])
def test_binary_cross_entropy_by_hand(pos_weight: float | tuple[float, ...]) -> None:
    weights = pos_weight if isinstance(pos_weight, tuple) else (pos_weight,) * 3
    loss = BinaryCrossEntropy(pos_weight=pos_weight)
    weighted, plain = 0.0, 0.0
    for logits, labels in zip(LOGITS.tolist(), LABELS.tolist(), strict=True):
        for logit, label, weight in zip(logits, labels, weights, strict=True):
            cost = math.log1p(math.exp(-logit if label else logit)) / 6
            weighted, plain = weighted + cost * (weight if label else 1), plain + cost
    with torch.inference_mode():
        loss(LOGITS, LABELS)
    logits = LOGITS.clone().requires_grad_()
    value = loss(logits, LABELS)
    value.backward()  # type: ignore[no-untyped-call]
    assert value.item() == pytest.approx(weighted)
    assert loss.measure(LOGITS, LABELS).item() == pytest.approx(plain), "what is measured has no weights"


def test_binary_focal_loss_by_hand() -> None:
    for gamma in (0.0, 0.5, 2.0):
        expected = 0.0
        for logit, label in zip(LOGITS.flatten().tolist(), LABELS.flatten().tolist(), strict=True):
            right = 1 / (1 + math.exp(-logit if label else logit))
            expected -= (1 - right) ** gamma * math.log(right) / 6
        loss = BinaryFocal(gamma=gamma)
        assert loss(LOGITS, LABELS).item() == pytest.approx(expected)
        assert loss.measure(LOGITS, LABELS).item() == BinaryCrossEntropy()(LOGITS, LABELS).item()


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
        {"kind": "focal", "gamma": -1},
        {"kind": "cross_entropy", "class_weights": "rare"},
        {"kind": "cross_entropy", "class_weights": [1, -1]},
        {"kind": "nll", "class_weights": [0, 0]},
        {"kind": "focal", "class_weights": 2},
        {"kind": "binary_cross_entropy", "pos_weight": 0},
        {"kind": "binary_cross_entropy", "pos_weight": [1, -1]},
        {"kind": "hinge"},
        {},
    ],
    ids=str,
)
def test_what_is_no_loss_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(LossConfig).validate_python(data)


def test_the_weights_of_a_trial_stay_where_recorded_steps_read_them() -> None:
    """Many other trials of the same process have weights of their own meanwhile."""
    cpu = torch.device("cpu")
    weights = on_device((0.25, 0.75), cpu)
    for number in range(1000):
        on_device((float(number), 1.0), cpu)
    assert on_device((0.25, 0.75), cpu) is weights
