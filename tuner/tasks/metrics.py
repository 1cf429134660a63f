"""Computation of the metrics; `tuner.objectives.METRICS` describes them.

The full name of a metric is ``<set>_<head>_<metric>``, such as ``val_digit_accuracy``, or ``<set>_<metric>`` if the
model has a single output.
"""

import torch
from torch import Tensor

CLASS_METRICS = ("accuracy", "precision", "recall", "f1")
VALUE_METRICS = ("error",)
EPOCH_METRICS = ("epoch_seconds", "images_per_second", "learning_rate", "parameters", "latency_ms")


def accuracy(output: Tensor, target: Tensor) -> float:
    """Share of the samples whose largest output (N, classes) is that of the target class (N,), in [0, 1]."""
    return (output.argmax(dim=1) == target).double().mean().item()


def classification(output: Tensor, target: Tensor) -> dict[str, float]:
    """The CLASS_METRICS of outputs (N, classes) and class indices (N,). A class never predicted has precision 0."""
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, _ = precision_recall_fscore_support(
        target.cpu().numpy(),
        output.argmax(dim=1).cpu().numpy(),
        labels=range(output.shape[1]),
        average="macro",
        zero_division=0.0,
    )
    return {
        "accuracy": accuracy(output, target),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
    }


def regression(output: Tensor, target: Tensor) -> dict[str, float]:
    """The VALUE_METRICS of outputs (N, values) and targets (N, values)."""
    return {"error": torch.linalg.vector_norm(output - target, dim=1).mean().item()}


def confusion(output: Tensor, target: Tensor) -> list[list[int]]:
    """The confusion matrix, in counts of samples: rows are true classes, columns predicted ones."""
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(target.cpu().numpy(), output.argmax(dim=1).cpu().numpy(), labels=range(output.shape[1]))
    return [[int(count) for count in row] for row in matrix]
