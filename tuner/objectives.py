"""Metrics, objectives, and the comparison of trials by them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tuner.config import Config

Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Metric:
    """A metric of the training loop.

    Args:
        meaning: What it measures, with its unit.
        mode: The direction that is better; None if neither is.
        undefined: What a set lacks for which the value is NaN, whatever the model; empty if there is always a value.
    """

    meaning: str
    mode: Mode | None
    undefined: str = ""


def _of_objects(meaning: str, size: str = "") -> Metric:
    """A metric that is a number where there are objects; if it is of those of a size, where there are some of these."""
    lacks = f"no object of {size} of the resized images" if size else "no object"
    return Metric(f"{meaning}{f' of objects of {size}' if size else ''}, in [0, 1]", "max", lacks)


METRICS = {
    "loss": Metric(
        "mean loss per sample, summed over the heads, without label smoothing, class weights and head weights", "min"
    ),
    "accuracy": Metric("share of samples, of a mask of pixels, whose largest output is the right class", "max"),
    "accuracy_top5": Metric("share of samples whose class is among the five largest outputs, in [0, 1]", "max"),
    "ece": Metric("expected calibration error of the predicted class, in 15 bins, in [0, 1]", "min"),
    "precision": Metric("macro precision: the mean over classes, in [0, 1]", "max"),
    "recall": _of_objects("macro recall: the mean over classes, of boxes COCO's of up to 100 detections"),
    "f1": Metric("macro F1: the mean over classes, in [0, 1]", "max"),
    "f1_micro": Metric("F1 over all pairs of a sample and a class, at a probability of 0.5, in [0, 1]", "max"),
    "miou": Metric("intersection over union of the regions of a class: the mean over classes, in [0, 1]", "max"),
    "dice": Metric("Dice coefficient of the regions of a class: the mean over classes, in [0, 1]", "max"),
    "boundary_f": Metric("F1 of the boundaries of the regions: the mean over classes, in [0, 1]", "max"),
    "map": _of_objects("mean average precision: the mean over classes, of boxes COCO's"),
    "map50": _of_objects("mean average precision of boxes that overlap the true ones by a half or more"),
    "map75": _of_objects("mean average precision of boxes that overlap the true ones by three quarters"),
    "map_voc": _of_objects("Pascal VOC's mean average precision, of 2010 and later"),
    "map_small": _of_objects("mean average precision", "up to 32x32 pixels"),
    "map_medium": _of_objects("mean average precision", "32x32 to 96x96 pixels"),
    "map_large": _of_objects("mean average precision", "more than 96x96 pixels"),
    "auroc": Metric("area under the ROC curve: the mean over classes, in [0, 1]", "max"),
    "error": Metric("mean Euclidean distance between output and target, in the target's unit", "min"),
    "epoch_seconds": Metric("wall-clock seconds of an epoch, validation included", "min"),
    "images_per_second": Metric("training images per second, validation excluded", "max"),
    "parameters": Metric("number of trainable parameters", "min"),
    "latency_ms": Metric("median inference time for one image, in milliseconds", "min"),
    "onnx_latency_ms": Metric("median time of the model's ONNX file for one image on the CPU, in milliseconds", "min"),
    "learning_rate": Metric("learning rate of the head at the end of the epoch", None),
}


def mode_of(name: str) -> Mode | None:
    """The direction of a metric that is better, given its full name; None if neither is.

    Raises:
        KeyError: The name does not end in the name of a metric of METRICS.
    """
    return metric_of(name).mode


def why_undefined(name: str, metrics: Mapping[str, Any]) -> str:
    """What the validation set lacks if a metric of METRICS, given its full name, is NaN; empty if it is not.

    Args:
        name: The full name.
        metrics: The metrics of an epoch.
    """
    value = metrics[name]
    return metric_of(name).undefined if isinstance(value, float) and math.isnan(value) else ""


def metric_of(name: str) -> Metric:
    """The metric of METRICS in whose name a full name ends; of several, the one with the longest.

    Raises:
        KeyError: It ends in none.
    """
    endings = [known for known in METRICS if name == known or name.endswith(f"_{known}")]
    if not endings:
        raise KeyError(name)
    return METRICS[max(endings, key=len)]


class Objective(Config):
    """A metric and the direction that is better."""

    metric: str
    """Full name of the metric, such as ``val_accuracy``."""
    mode: Mode
    """max or min."""

    @classmethod
    def of_metric(cls, metric: str) -> "Objective":
        """The objective for a metric of METRICS, with the direction of that metric."""
        mode = mode_of(metric)
        assert mode is not None, f"{metric} has no direction that is better"
        return cls(metric=metric, mode=mode)

    def beats(self, value: float, best: float | None) -> bool:
        """Whether `value` replaces `best`. Of equal values the later one wins: that model was trained longer."""
        if not math.isfinite(value):
            return False
        return best is None or (value >= best if self.mode == "max" else value <= best)

    def improves(self, value: float, best: float | None, by: float) -> bool:
        """Whether `value` is better than `best` by more than `by`."""
        if not math.isfinite(value):
            return False
        return best is None or (value > best + by if self.mode == "max" else value < best - by)

    def key(self, value: float) -> float:
        """A sort key: the better the value, the smaller the key."""
        return -value if self.mode == "max" else value

    def of(self, metrics: Mapping[str, Any]) -> float | None:
        """The value of the objective in a report; None if it is missing or not finite."""
        value = self._number(metrics)
        return value if value is not None and math.isfinite(value) else None

    def not_finite(self, metrics: Mapping[str, Any]) -> float | None:
        """The value of the objective in a report if it is NaN or infinite; else None."""
        value = self._number(metrics)
        return None if value is None or math.isfinite(value) else value

    def _number(self, metrics: Mapping[str, Any]) -> float | None:
        value = metrics.get(self.metric)
        if value is None:
            return None
        try:
            return float(value)
        except OverflowError:  # a whole number of more than 308 digits
            return math.inf if value > 0 else -math.inf


def pareto_front(points: Sequence[Sequence[float]], objectives: Sequence[Objective]) -> list[bool]:
    """Whether each point is on the Pareto front: no other is as good in every objective and better in one.

    Args:
        points: One row per trial, one value per objective.
        objectives: The objectives, in the order of the values.
    """
    costs = [[o.key(value) for o, value in zip(objectives, point, strict=True)] for point in points]

    def dominates(a: list[float], b: list[float]) -> bool:
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    return [not any(dominates(other, cost) for other in costs) for cost in costs]


def objectives_of(value: Any) -> Any:
    """Validate ``objective``: a list of objectives, or a single one, which becomes a list."""
    if isinstance(value, list | tuple) and not value:
        raise ValueError(f"{value!r} names no metric, such as val_accuracy")
    return [objective_of(each) for each in (value if isinstance(value, list | tuple) else [value])]


def objective_of(value: Any) -> Any:
    """Validate one objective: a mapping, or the name of a metric, which gets the direction of that metric."""
    if not isinstance(value, str | dict | Objective):
        raise ValueError(f"{value!r} is not the name of a metric, such as val_accuracy")
    if not isinstance(value, str):
        return value
    mode = mode_of(value) if is_measured(value) else "max"
    return {"metric": value, "mode": mode}  # `AnyTrial.check_metric` rejects a name that is not measured


def is_measured(metric: str) -> bool:
    """Whether this is the full name of a metric of METRICS that has a direction."""
    try:
        return mode_of(metric) is not None
    except KeyError:
        return False
