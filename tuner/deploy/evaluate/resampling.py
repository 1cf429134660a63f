"""Confidence intervals by the bootstrap: the images are drawn with replacement, and the metrics computed anew."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuner.tasks.base import TaskMeter

Array = np.ndarray[Any, np.dtype[Any]]
RESAMPLES = 1000
CONFIDENCE = 0.95
SUPPORT = "support"
"""The column of a table of classes that counts, and is not measured."""


@dataclass(frozen=True)
class Interval:
    """Where a metric lies with a probability of `CONFIDENCE`."""

    low: float
    high: float


@dataclass(frozen=True)
class Resampled:
    """The metrics of a model in each of the resamples.

    Args:
        metrics: Each metric, float64 (resamples,).
        by_class: Each metric of single classes, float64 (resamples, classes), by head and name.
    """

    metrics: dict[str, Array]
    by_class: dict[str, dict[str, Array]]


def resample(
    meters: Sequence[TaskMeter],
    images: int,
    count: int = RESAMPLES,
    seed: int = 0,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> list[Resampled]:
    """Compute the metrics of resamples of a set, the same resamples for each model.

    Args:
        meters: Those of the models, which have kept each image.
        images: Number of images.
        count: Number of resamples.
        seed: Seed of the draws.
        progress: Called with the number of resamples so far, and of all.
    """
    rng = np.random.default_rng(seed)
    seen: list[list[tuple[dict[str, float], dict[str, dict[str, list[float]]]]]] = [[] for _ in meters]
    for number in range(count):
        counts = np.bincount(rng.integers(0, images, images), minlength=images)
        for meter, found in zip(meters, seen, strict=True):
            weighted = meter.weighted(counts)
            found.append((weighted.compute(), weighted.by_class()))
        progress(number + 1, count)
    return [_joined(each) for each in seen]


def _joined(found: Sequence[tuple[dict[str, float], dict[str, dict[str, list[float]]]]]) -> Resampled:
    if not found:
        return Resampled({}, {})
    metrics, by_class = found[0]
    return Resampled(
        {name: np.array([each[name] for each, _ in found]) for name in metrics},
        {
            head: {name: np.array([each[head][name] for _, each in found]) for name in columns if name != SUPPORT}
            for head, columns in by_class.items()
        },
    )


def interval(values: Array | None) -> Interval | None:
    """The percentile interval of resampled values, of which NaN is undefined; None without any."""
    if values is None or not np.isfinite(values).any():
        return None
    tail = 100 * (1 - CONFIDENCE) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanpercentile(values, [tail, 100 - tail])
    return Interval(float(low), float(high))


def chance(differences: Array) -> float | None:
    """How likely a difference at least as far from 0 is by chance, by the resamples: the smallest level whose interval
    leaves 0 out; None if it is undefined.
    """
    known = differences[~np.isnan(differences)]
    if not len(known):
        return None
    least = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (least + 1) / (len(known) + 1)))


def mcnemar(first: int, second: int) -> float:
    """How likely two models differ so much by chance in which images they are right on: McNemar's exact test.

    Args:
        first: Number of images on which the first alone is right.
        second: Number on which the second alone is.

    Returns:
        Twice the smaller tail of the binomial distribution of these images, each of which is either with a probability
        of a half; at most 1.
    """
    from scipy.stats import binomtest

    return float(binomtest(first, first + second).pvalue) if first + second else 1.0
