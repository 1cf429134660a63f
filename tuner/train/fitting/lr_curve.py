"""The curve of a learning-rate range test, and the learning rate that it proposes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

_WIDTH = 0.15
"""Decades of the learning rate over which the loss is smoothed: the standard deviation of the weights."""
_REFERENCE = 1.0
"""Decades at the beginning of the test, where a rate is too low to change the loss: its mean there is the first."""
_LEAST_DESCENT = 0.05
"""Share of the first loss by which the loss has to fall."""
_LEAST_NOISES = 5.0
"""Standard errors of the smoothed loss by which it has to fall: the lowest of many places is low by chance."""
_FEWEST = 5
"""Steps of a test from which anything follows."""
_MARGIN = 10.0
"""By how much a rate is below that with the lowest loss, to be on the safe side."""


@dataclass(frozen=True)
class Proposal:
    """A learning rate, and what it follows from.

    Args:
        lr: The learning rate; None if none follows from the test.
        why: What it follows from, or why none does, as a sentence without its full stop.
        steepest: The rate at which the smoothed loss falls steepest; None without a descent.
        lowest: The rate at which the smoothed loss is lowest; None without a descent.
    """

    lr: float | None
    why: str
    steepest: float | None = None
    lowest: float | None = None


@dataclass(frozen=True)
class Curve:
    """The losses of a test.

    Args:
        rates: The learning rate of each step, rising by the same factor.
        losses: The loss of each step's batch, before the step.
        exploded: Whether the loss exploded, or was no number in the step after the last; else the rates ended.
    """

    rates: Sequence[float]
    losses: Sequence[float]
    exploded: bool = False

    @cached_property
    def smoothed(self) -> list[float]:
        """The loss of each step as a mean with the steps around it, weighted by a normal distribution."""
        logs = [math.log10(rate) for rate in self.rates]
        means = []
        for centre in logs:
            weights = [math.exp(-(((each - centre) / _WIDTH) ** 2) / 2) for each in logs]
            products = (weight * loss for weight, loss in zip(weights, self.losses, strict=True))
            means.append(math.fsum(products) / math.fsum(weights))
        return means

    def propose(self) -> Proposal:
        """Propose a learning rate: that of the steepest descent, or a tenth of that of the lowest loss if it is higher.

        The steepest descent of the smoothed loss over the logarithm of the rate is where the loss profits most from a
        higher rate; Smith (2017, section 3.3) reads the same curve. At the lowest loss the rate is about to be too
        high, and a tenth of it is on the safe side (Howard and Gugger, 2020, fastai). Both are rather too low than too
        high, so that the higher one is proposed: `benchmarks/lr_range.py` compares them.
        """
        if len(self.losses) < _FEWEST:
            return Proposal(None, f"the loss exploded after {len(self.losses)} steps, at the lowest learning rates")
        smoothed = self.smoothed
        end = min(range(len(smoothed)), key=smoothed.__getitem__)
        before = [k for k, rate in enumerate(self.rates) if rate < self.rates[0] * 10**_REFERENCE]
        first = math.fsum(self.losses[k] for k in before) / len(before)
        fall = first - smoothed[end]
        if fall < max(_LEAST_DESCENT * abs(first), _LEAST_NOISES * self._noise(before)):
            falls = f"it is {first:.4g} at first, and {smoothed[end]:.4g} at best"
            return Proposal(None, f"the loss falls at no learning rate: {falls}")
        slopes = [later - earlier for earlier, later in pairwise(smoothed[: end + 1])]
        at = min(range(len(slopes)), key=slopes.__getitem__)
        steepest, lowest = math.sqrt(self.rates[at] * self.rates[at + 1]), self.rates[end]
        falls = f"the loss falls steepest at {steepest:.2g} and is lowest at {lowest:.2g}"
        if steepest >= lowest / _MARGIN:
            return Proposal(
                _rounded(steepest), f"{falls}: the former, which is more than a tenth of the latter", steepest, lowest
            )
        return Proposal(
            _rounded(lowest / _MARGIN),
            f"{falls}: a tenth of the latter, which is more than the former",
            steepest,
            lowest,
        )

    def _noise(self, steps: Sequence[int]) -> float:
        """The standard error of the smoothed loss, from its scatter in these steps."""
        values = [self.losses[k] for k in steps]
        mean = math.fsum(values) / len(values)
        variance = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
        decades = math.log10(self.rates[-1] / self.rates[0])
        averaged = max(1.0, 2 * math.sqrt(math.pi) * _WIDTH * (len(self.rates) - 1) / decades)
        return math.sqrt(variance / averaged)


def _rounded(lr: float) -> float:
    """A rate with two significant digits."""
    return float(f"{lr:.2g}")
