import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import Tensor
from torch.nn.functional import one_hot

from tuner.objectives import METRICS, mode_of
from tuner.tasks.metrics import accuracy, classification, confusion, regression

TRUE = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
PREDICTED = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 0, 0])


def outputs(predicted: Tensor, classes: int) -> Tensor:
    """Logits whose largest is the predicted class."""
    return one_hot(predicted, classes).float() * 3 - 1


def test_the_confusion_matrix_has_a_row_for_each_true_class() -> None:
    assert confusion(outputs(PREDICTED, 3), TRUE) == [[3, 1, 0], [0, 2, 1], [2, 0, 1]]


def test_the_confusion_matrix_has_every_class_even_one_that_never_occurs() -> None:
    assert confusion(outputs(torch.tensor([1, 1]), 3), torch.tensor([1, 1])) == [[0, 0, 0], [0, 2, 0], [0, 0, 0]]


def test_macro_metrics_by_hand() -> None:
    precisions = (3 / 5, 2 / 3, 1 / 2)
    recalls = (3 / 4, 2 / 3, 1 / 3)
    f1s = [2 * p * r / (p + r) for p, r in zip(precisions, recalls, strict=True)]
    measured = classification(outputs(PREDICTED, 3), TRUE)
    assert measured == pytest.approx(
        {"accuracy": 6 / 10, "precision": sum(precisions) / 3, "recall": sum(recalls) / 3, "f1": sum(f1s) / 3}
    )


def test_a_class_never_predicted_has_precision_zero_and_counts() -> None:
    measured = classification(outputs(torch.tensor([0, 0, 0, 0]), 2), torch.tensor([0, 0, 0, 1]))
    assert measured == pytest.approx({"accuracy": 3 / 4, "precision": 3 / 8, "recall": 1 / 2, "f1": 3 / 7})


@pytest.mark.parametrize("seed", range(20))
def test_they_are_those_of_scikit_learn(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    classes = 2 + seed  # with many of them some never occur, and some are never predicted
    output, target = torch.randn(30, classes, generator=generator), torch.randint(classes, (30,), generator=generator)
    labels, predicted = range(classes), output.argmax(dim=1)
    macro = precision_recall_fscore_support(target, predicted, labels=labels, average="macro", zero_division=0.0)
    measured = classification(output, target)
    assert [measured[name] for name in ("precision", "recall", "f1")] == pytest.approx(macro[:3])
    assert measured["accuracy"] == accuracy(output, target)
    assert confusion(output, target) == confusion_matrix(target, predicted, labels=labels).tolist()


def test_accuracy_alone_agrees() -> None:
    assert accuracy(outputs(PREDICTED, 3), TRUE) == pytest.approx(0.6)
    assert accuracy(outputs(TRUE, 3), TRUE) == 1.0


def test_the_error_is_the_mean_euclidean_distance() -> None:
    output = torch.tensor([[3.0, 4.0], [1.0, 1.0]])
    target = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    assert regression(output, target) == {"error": pytest.approx((5 + 1) / 2)}


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val_loss", "min"),
        ("val_accuracy", "max"),
        ("val_digit_accuracy", "max"),
        ("train_position_error", "min"),
        ("test_f1", "max"),
        ("epoch_seconds", "min"),
        ("images_per_second", "max"),
        ("parameters", "min"),
        ("latency_ms", "min"),
        ("learning_rate", None),
    ],
)
def test_the_direction_of_a_metric_by_its_full_name(name: str, mode: str | None) -> None:
    assert mode_of(name) == mode


@pytest.mark.parametrize("name", ["val_accuracies", "accuracy_val", "valloss", ""])
def test_what_is_no_metric_has_no_direction(name: str) -> None:
    with pytest.raises(KeyError):
        mode_of(name)


def test_no_metric_hides_another() -> None:
    """A name that ends in two of them would take the direction of whichever comes first."""
    for name in METRICS:
        assert [other for other in METRICS if name == other or name.endswith(f"_{other}")] == [name]
