"""The distributions over a range of numbers."""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from tuner.config_keys import Value
from tuner.search.distributions import BaseDistribution
from tuner.search.encoding import Axis

_MAX_STEPS = 10_000  # with more steps a sampler gets a continuous axis: some of Optuna's samplers list every number
_COUNTABLE = {int: 2**63, float: 2**53}  # with more steps NumPy cannot draw, or not draw each of them


def _rounded(value: float) -> float:
    # 0.1 + 2 * 0.1 is 0.30000000000000004; nobody writes more than twelve digits.
    return float(f"{value:.12g}")


class _Steps(Sequence[Value]):
    """The values of a range with steps, computed on access, because there may be billions."""

    def __init__(self, after: Callable[[int], Value], count: int) -> None:
        self._after = after
        self._indices = range(count)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        chosen = self._indices[index]
        return [self._after(steps) for steps in chosen] if isinstance(chosen, range) else self._after(chosen)


class _Interval(BaseDistribution):
    bounds: tuple[float, float]
    step: float | None = None

    @property
    def low(self) -> float:
        return self.bounds[0]

    @property
    def high(self) -> float:
        return self.bounds[1]

    @model_validator(mode="after")
    def _ordered(self) -> "_Interval":
        if self.low > self.high:
            raise ValueError(f"low <= high must hold, but got {list(self.bounds)}")
        if not math.isfinite(self.high - self.low):
            raise ValueError(f"the range from {self.low:g} to {self.high:g} is too large to compute with")
        if self.step is not None and not (self.high - self.low) // self.step < _COUNTABLE[type(self.step)]:
            raise ValueError(f"there are too many steps of {self.step:g} from {self.low:g} to {self.high:g}")
        return self

    def axis(self) -> Axis:
        low, high = self.corners()
        is_fine = self.step is None or self._steps > _MAX_STEPS
        return Axis("real", low, high, step=None if is_fine else self.step)

    def decode(self, number: float) -> Value:
        return float(number) if self.step is None else self._on_grid(number)

    def encode(self, value: Value) -> float:
        if type(value) not in (int, float) or not self.low <= value <= self.high:
            raise ValueError(f"{value!r} is outside {list(self.bounds)}")
        if self.step is not None and abs(self._on_grid(value) - value) > 1e-6 * self.step:
            raise ValueError(f"{value!r} is not {self.low:g} plus a multiple of {self.step:g}")
        return float(value)

    def perturbed(self, value: Value, factor: float) -> Value:
        return self.decode(min(max(value * factor, self.low), self.high))

    def _on_grid(self, number: float) -> float:
        """The nearest number that is low plus a multiple of the step, and not above high."""
        assert self.step is not None
        return self._after(min(round((number - self.low) / self.step), self._steps))

    @property
    def _steps(self) -> int:
        """Number of steps from low to high."""
        assert self.step is not None
        # With a tolerance for rounding errors: [0, 0.3] in steps of 0.1 has four values.
        return math.floor((self.high - self.low) / self.step * (1 + 1e-12) + 1e-9)

    def _after(self, steps: int) -> float:
        """The value after a number of steps from low."""
        assert self.step is not None
        return min(max(_rounded(self.low + steps * self.step), self.low), self.high)

    def corners(self) -> list[Value]:
        return [self.low, self.high if self.step is None else self._on_grid(self.high)]

    def values(self) -> Sequence[Value] | None:
        if self.step is None:
            return [self.low] if self.low == self.high else None
        return _Steps(self._after, self._steps + 1)


class Uniform(_Interval):
    """Real numbers in [low, high], uniformly distributed; with `step`, low plus multiples of it."""

    bounds: tuple[float, float] = Field(alias="uniform")
    """Low and high, both included."""
    step: float | None = Field(None, gt=0)
    """Distance between neighbouring values."""

    def sample(self, rng: np.random.Generator) -> Value:
        if self.low == self.high:
            return self.low
        if self.step is None:
            return float(rng.uniform(self.low, self.high))
        return self._after(int(rng.integers(self._steps + 1)))


class LogUniform(_Interval):
    """Real numbers in [low, high], uniformly distributed on a logarithmic scale."""

    bounds: tuple[float, float] = Field(alias="loguniform")
    """Low and high, both included, above 0."""
    step: float | None = Field(None, gt=0)
    """Step: values are rounded to low plus a multiple of it."""

    @model_validator(mode="after")
    def _positive(self) -> "LogUniform":
        if self.low <= 0:
            raise ValueError(f"a log scale needs low > 0, but got {list(self.bounds)}")
        return self

    def axis(self) -> Axis:
        return Axis("real", self.low, self.high, log=True)

    def sample(self, rng: np.random.Generator) -> Value:
        drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return self.decode(min(max(drawn, self.low), self.high))


class Int(_Interval):
    """Integers in [low, high], uniformly distributed; with `step`, low plus multiples of it."""

    bounds: tuple[int, int] = Field(alias="int")
    """Low and high, both included."""
    step: int = Field(1, ge=1)
    """Distance between neighbouring values."""

    def axis(self) -> Axis:
        low, high = self.corners()
        if self._steps > _MAX_STEPS:
            return Axis("real", low, high)
        return Axis("integer", low, high, step=self.step)

    def decode(self, number: float) -> Value:
        steps = round((number - self.bounds[0]) / self.step)
        return self.bounds[0] + min(max(steps, 0), self._steps) * self.step

    def encode(self, value: Value) -> float:
        if type(value) is not int:
            raise ValueError(f"{value!r} is not a whole number")
        if value not in self.values():
            steps = "" if self.step == 1 else f" in steps of {self.step}"
            raise ValueError(f"{value!r} is outside {list(self.bounds)}{steps}")
        return value

    @property
    def _steps(self) -> int:
        return (self.bounds[1] - self.bounds[0]) // self.step

    def corners(self) -> list[Value]:
        return [self.bounds[0], self.bounds[0] + self._steps * self.step]

    def values(self) -> Sequence[Value]:
        # A range, because there may be billions of values, such as seeds.
        return range(self.bounds[0], self.bounds[1] + 1, self.step)

    def sample(self, rng: np.random.Generator) -> Value:
        return self.bounds[0] + int(rng.integers(self._steps + 1)) * self.step


class LogInt(Int):
    """Integers in [low, high], uniformly distributed on a logarithmic scale."""

    bounds: tuple[int, int] = Field(alias="logint")
    """Low and high, both included, above 0."""

    @model_validator(mode="after")
    def _positive(self) -> "LogInt":
        if self.low < 1:
            raise ValueError(f"a log scale needs low >= 1, but got {list(self.bounds)}")
        return self

    def axis(self) -> Axis:
        low, high = self.corners()
        return Axis("real" if high - low > _MAX_STEPS else "integer", low, high, log=True)

    def sample(self, rng: np.random.Generator) -> Value:
        # Extended by half a unit on both sides; otherwise the ends would be drawn half as often as they should.
        drawn = math.exp(rng.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
        return self.decode(drawn)


class Normal(BaseDistribution):
    """A normal distribution, truncated at four standard deviations from its mean."""

    parameters: tuple[float, Annotated[float, Field(gt=0)]] = Field(alias="normal")
    """Mean and standard deviation."""
    step: float | None = Field(None, gt=0)
    """Step: values are rounded to the mean plus a multiple of it."""

    def axis(self) -> Axis:
        # The axis consists of quantiles, so that uniform samples of it have the normal distribution.
        low, high = self.corners()
        return Axis("real", self._normal.cdf(low), self._normal.cdf(high))

    def decode(self, number: float) -> Value:
        low, high = self.corners()
        value = self._normal.inv_cdf(number)
        if self.step is not None:
            return self._on_grid(min(max(value, low), high))
        return float(min(max(value, low), high))

    def encode(self, value: Value) -> float:
        low, high = self.corners()
        if type(value) not in (int, float) or not low <= value <= high:
            raise ValueError(f"{value!r} is outside {[low, high]}, four standard deviations around the mean")
        if self.step is not None and abs(self._on_grid(value) - value) > 1e-6 * self.step:
            raise ValueError(f"{value!r} is not {self.parameters[0]:g} plus a multiple of {self.step:g}")
        return self._normal.cdf(value)

    def perturbed(self, value: Value, factor: float) -> Value:
        low, high = self.corners()
        return self.decode(self._normal.cdf(min(max(value * factor, low), high)))

    @model_validator(mode="after")
    def _is_finite(self) -> "Normal":
        mean, deviation = self.parameters
        if not (math.isfinite(mean - 4 * deviation) and math.isfinite(mean + 4 * deviation)):
            raise ValueError(f"{mean:g} +- four standard deviations of {deviation:g} is too large to compute with")
        if self.step is not None and not (abs(mean) + 4 * deviation) / self.step < _COUNTABLE[float]:
            raise ValueError(f"there are too many steps of {self.step:g} around {mean:g}")
        return self

    @property
    def _normal(self) -> NormalDist:
        return NormalDist(*self.parameters)

    def _on_grid(self, value: float) -> Value:
        """The nearest number that is the mean plus a multiple of the step."""
        assert self.step is not None
        mean = self.parameters[0]
        return _rounded(mean + round((value - mean) / self.step) * self.step)

    def corners(self) -> list[Value]:
        mean, deviation = self.parameters
        if self.step is None:
            return [mean - 4 * deviation, mean + 4 * deviation]
        reach = math.floor(4 * deviation / self.step) * self.step
        return [self._on_grid(mean - reach), self._on_grid(mean + reach)]

    def values(self) -> Sequence[Value] | None:
        return None

    def sample(self, rng: np.random.Generator) -> Value:
        mean, deviation = self.parameters
        low, high = self.corners()
        while True:
            value = mean + rng.normal(0.0, deviation)
            value = value if self.step is None else self._on_grid(value)
            if low <= value <= high:
                return float(value)
