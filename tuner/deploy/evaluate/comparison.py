"""Two models on the same images: which images differ, and whether the difference is more than chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuner.deploy.evaluate.measured import Measured
from tuner.deploy.evaluate.resampling import Interval, Resampled, chance, interval, mcnemar


@dataclass(frozen=True)
class Difference:
    """A metric of two models.

    Args:
        name: The metric.
        values: What it is for each of the models.
        interval: Where the first less the second lies; None if it is undefined.
        p: How likely such a difference is by chance, by the paired bootstrap; None if it is undefined.
    """

    name: str
    values: tuple[float, float]
    interval: Interval | None
    p: float | None


@dataclass(frozen=True)
class Answers:
    """On which images two models differ in one head.

    Args:
        head: The head, or its target.
        only_first: The images on which the first alone is right, those first on which the second is furthest behind.
        only_second: Those on which the second alone is.
        both_wrong: Number of images on which both are.
        p: How likely so uneven numbers are by chance, by McNemar's exact test; None if answers are more than right or
            wrong.
    """

    head: str
    only_first: list[str]
    only_second: list[str]
    both_wrong: int
    p: float | None

    def as_dict(self) -> dict[str, Any]:
        """The answers as JSON has them."""
        return {
            "head": self.head,
            "only_model_right": self.only_first,
            "only_other_right": self.only_second,
            "both_wrong": self.both_wrong,
            "mcnemar_p": self.p,
        }


def differences(first: Measured, second: Measured, resampled: Sequence[Resampled]) -> list[Difference]:
    """Compare the metrics that both models have."""
    found, (values, others) = [], (first.meter.compute(), second.meter.compute())
    for name in values:
        if name in others:
            both = [each.metrics.get(name) for each in resampled]
            gap = None if both[0] is None or both[1] is None else both[0] - both[1]
            p = None if gap is None else chance(gap)
            found.append(Difference(name, (values[name], others[name]), interval(gap), p))
    return found


def answers(first: Measured, second: Measured, paths: Sequence[str]) -> list[Answers]:
    """Compare what two models say of each image.

    Args:
        first: A model.
        second: Another one, on the same images.
        paths: The path of each image that was measured.
    """
    rights = [each.meter.right() for each in (first, second)]
    found = []
    for head in first.wrong:
        if head not in second.wrong:
            continue
        wrong, others = first.wrong[head], second.wrong[head]
        behind = first.losses[head] - second.losses[head]

        def named(chosen: "np.ndarray[Any, Any]", order: "np.ndarray[Any, Any]") -> list[str]:
            places = np.flatnonzero(chosen)
            return [paths[place] for place in places[np.argsort(order[places], kind="stable")]]

        p = None
        if all(head in right for right in rights):
            own, other = (right[head] for right in rights)
            p = mcnemar(int((own & ~other).sum()), int((~own & other).sum()))
        found.append(
            Answers(
                head, named(~wrong & others, behind), named(wrong & ~others, -behind), int((wrong & others).sum()), p
            )
        )
    return found
