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
    """The CLASS_METRICS of outputs (N, classes) and class indices (N,), averaged over the classes (macro).

    A class that is never predicted has precision 0, one that never occurs recall 0; both count in the averages.
    """
    predicted, target, classes = output.argmax(dim=1).cpu(), target.cpu(), output.shape[1]
    hits, positives, members = (
        torch.bincount(found, minlength=classes).double() for found in (target[predicted == target], predicted, target)
    )
    return {
        "accuracy": (hits.sum() / len(target)).item(),
        "precision": (hits / positives.clamp(min=1)).mean().item(),
        "recall": (hits / members.clamp(min=1)).mean().item(),
        "f1": (2 * hits / (positives + members).clamp(min=1)).mean().item(),
    }


def regression(output: Tensor, target: Tensor) -> dict[str, float]:
    """The VALUE_METRICS of outputs (N, values) and targets (N, values)."""
    return {"error": torch.linalg.vector_norm(output - target, dim=1).mean().item()}


def confusion(output: Tensor, target: Tensor) -> list[list[int]]:
    """The confusion matrix, in counts of samples: rows are true classes, columns predicted ones."""
    classes = output.shape[1]
    cells = target.cpu() * classes + output.argmax(dim=1).cpu()
    counts: list[list[int]] = torch.bincount(cells, minlength=classes**2).reshape(classes, classes).tolist()
    return counts
