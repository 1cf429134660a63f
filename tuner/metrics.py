"""METRICS: what is measured, and which direction is better.

A metric's full name is ``<set>_<head>_<metric>``, such as ``val_digit_accuracy``; one output has no head.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Metric:
    """What a metric measures, in words with its unit, and which direction is better (None: neither)."""

    meaning: str
    mode: Mode | None


METRICS = {
    "loss": Metric("mean loss a sample, heads summed, without label smoothing or head weights", "min"),
    "accuracy": Metric("share of samples whose largest output is the right class, in [0, 1]", "max"),
    "precision": Metric("macro precision: the mean over classes, in [0, 1]", "max"),
    "recall": Metric("macro recall: the mean over classes, in [0, 1]", "max"),
    "f1": Metric("macro F1: the mean over classes, in [0, 1]", "max"),
    "error": Metric("mean Euclidean distance between output and target, in the target's unit", "min"),
    "epoch_seconds": Metric("wall-clock seconds of an epoch, validation included", "min"),
    "images_per_second": Metric("training images a second, validation excluded", "max"),
    "parameters": Metric("number of weights that are trained", "min"),
    "latency_ms": Metric("milliseconds that the model takes for one image, the median of several", "min"),
    "learning_rate": Metric("learning rate at the end of the epoch", None),
}

CLASS_METRICS = ("accuracy", "precision", "recall", "f1")
VALUE_METRICS = ("error",)
EPOCH_METRICS = ("epoch_seconds", "images_per_second", "learning_rate", "parameters", "latency_ms")


def mode_of(name: str) -> Mode | None:
    """Which direction of a metric, by its full name, is better.

    Raises:
        KeyError: No metric of METRICS ends the name.
    """
    ending = next((known for known in METRICS if name == known or name.endswith(f"_{known}")), None)
    if ending is None:
        raise KeyError(name)
    return METRICS[ending].mode


def accuracy(output: Tensor, target: Tensor) -> float:
    """Share of samples (N, classes) whose largest output is the target (N,)."""
    return (output.argmax(dim=1) == target).double().mean().item()


def classification(output: Tensor, target: Tensor) -> dict[str, float]:
    """CLASS_METRICS of outputs (N, classes) against class indices (N,). A class never predicted has precision 0."""
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
    """VALUE_METRICS of outputs (N, values) against targets (N, values)."""
    return {"error": torch.linalg.vector_norm(output - target, dim=1).mean().item()}


def confusion(output: Tensor, target: Tensor) -> list[list[int]]:
    """The confusion matrix: row the true class, column the predicted one, each cell a count of samples."""
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(target.cpu().numpy(), output.argmax(dim=1).cpu().numpy(), labels=range(output.shape[1]))
    return [[int(count) for count in row] for row in matrix]
