"""The distributions that a search space is made of.

Each is a mapping with one name and its arguments, as in ``optimizer.lr: {loguniform: [1e-4, 1e-1]}``.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, get_args

import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from tuner.config import Config

Value = Any
"""One value of a hyperparameter: a number, a string, a boolean, or a list or mapping of these."""


class _Distribution(Config):
    """What to try for one hyperparameter."""

    @abstractmethod
    def values(self) -> list[Value] | None:
        """All values in order, or None where there is a continuum of them."""

    @abstractmethod
    def corners(self) -> list[Value]:
        """The values that decide whether all of it is allowed: every choice, or both ends."""

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Value:
        """One value at random."""


class _Finite(_Distribution):
    options: list[Value]

    def values(self) -> list[Value]:
        return list(self.options)

    def corners(self) -> list[Value]:
        return list(self.options)

    def sample(self, rng: np.random.Generator) -> Value:
        return self.options[int(rng.integers(len(self.options)))]


class Grid(_Finite):
    """Each of these values; random search draws from them with equal chance."""

    options: list[Value] = Field(alias="grid", min_length=1)
    """The values to try."""

    @model_validator(mode="after")
    def _no_value_twice(self) -> "Grid":
        twice = next((value for i, value in enumerate(self.options) if value in self.options[:i]), None)
        if twice is not None:
            raise ValueError(f"{twice!r} stands twice: it would be tried twice, to the same numbers")
        return self


class Choice(_Finite):
    """One of these values, with equal chance."""

    options: list[Value] = Field(alias="choice", min_length=1)
    """The values to draw from."""


class _Interval(_Distribution):
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
        return self

    def corners(self) -> list[Value]:
        values = self.values()
        return [values[0], values[-1]] if values else [self.low, self.high]

    def values(self) -> list[Value] | None:
        if self.step is None:
            return [self.low] if self.low == self.high else None
        # Half a step's tolerance of rounding: [0, 0.3] in steps of 0.1 has four values.
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        return [self._tidy(self.low + i * self.step) for i in range(count)]

    def _tidy(self, value: float) -> Value:
        # 0.1 + 2 * 0.1 is 0.30000000000000004; twelve digits are more than anyone types.
        return float(f"{value:.12g}")


class Uniform(_Interval):
    """Any number in [low, high], or every `step` from low."""

    bounds: tuple[float, float] = Field(alias="uniform")
    """Low and high, both included."""
    step: float | None = Field(None, gt=0)
    """Distance between neighbouring values."""

    def sample(self, rng: np.random.Generator) -> Value:
        values = self.values()
        return float(rng.uniform(self.low, self.high)) if values is None else values[int(rng.integers(len(values)))]


class LogUniform(_Interval):
    """Any number in [low, high], each order of magnitude with the same chance."""

    bounds: tuple[float, float] = Field(alias="loguniform")
    """Low and high, both included, above 0."""
    step: float | None = Field(None, gt=0)
    """Drawn values are rounded to low plus a multiple of this."""

    @model_validator(mode="after")
    def _positive(self) -> "LogUniform":
        if self.low <= 0:
            raise ValueError(f"a log scale needs low > 0, but got {list(self.bounds)}")
        return self

    def sample(self, rng: np.random.Generator) -> Value:
        drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        values = self.values()
        nearest = drawn if values is None else min(values, key=lambda value: abs(value - drawn))
        return min(max(nearest, self.low), self.high)


class Int(_Interval):
    """Any whole number in [low, high], or every `step` from low."""

    bounds: tuple[int, int] = Field(alias="int")
    """Low and high, both included."""
    step: int = Field(1, ge=1)
    """Distance between neighbouring values."""

    @property
    def _range(self) -> range:
        # Never listed to draw from it: a seed's range is billions of numbers.
        return range(self.bounds[0], self.bounds[1] + 1, self.step)

    def corners(self) -> list[Value]:
        return [self._range[0], self._range[-1]]

    def values(self) -> list[Value]:
        return list(self._range)

    def sample(self, rng: np.random.Generator) -> Value:
        return self._range[int(rng.integers(len(self._range)))]


class LogInt(Int):
    """Any whole number in [low, high], each order of magnitude with the same chance."""

    bounds: tuple[int, int] = Field(alias="logint")
    """Low and high, both included, above 0."""

    @model_validator(mode="after")
    def _positive(self) -> "LogInt":
        if self.low < 1:
            raise ValueError(f"a log scale needs low >= 1, but got {list(self.bounds)}")
        return self

    def sample(self, rng: np.random.Generator) -> Value:
        # Half a unit on both sides, or the ends would come half as often as they should.
        drawn = math.exp(rng.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
        nearest = round((drawn - self.low) / self.step)
        return self._range[min(max(nearest, 0), len(self._range) - 1)]


class Normal(_Distribution):
    """A normal distribution, cut off four standard deviations from its mean so that its ends can be checked."""

    parameters: tuple[float, Annotated[float, Field(gt=0)]] = Field(alias="normal")
    """Mean and standard deviation."""
    step: float | None = Field(None, gt=0)
    """Drawn values are rounded to the mean plus a multiple of this."""

    def corners(self) -> list[Value]:
        mean, deviation = self.parameters
        reach = 4 * deviation if self.step is None else math.floor(4 * deviation / self.step) * self.step
        return [mean - reach, mean + reach]

    def values(self) -> list[Value] | None:
        return None

    def sample(self, rng: np.random.Generator) -> Value:
        mean, deviation = self.parameters
        low, high = self.corners()
        while True:
            offset = rng.normal(0.0, deviation)
            value = mean + (offset if self.step is None else round(offset / self.step) * self.step)
            if low <= value <= high:
                return float(value)


def _name(value: Any) -> str | None:
    """Which distribution a mapping stands for: the one whose name is a key of it."""
    if isinstance(value, Mapping):
        named = [name for name in _NAMES if name in value]
        return named[0] if len(named) == 1 else None
    return next((name for name, kind in _NAMES.items() if type(value) is kind), None)


Distribution = Annotated[
    Annotated[Grid, Tag("grid")]
    | Annotated[Choice, Tag("choice")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("loguniform")]
    | Annotated[Int, Tag("int")]
    | Annotated[LogInt, Tag("logint")]
    | Annotated[Normal, Tag("normal")],
    Discriminator(
        _name,
        custom_error_type="unknown_distribution",
        custom_error_message="names no distribution",
    ),
]
"""Any of the distributions above, told apart by the name that is a key of the mapping."""

_NAMES: dict[str, type[_Distribution]] = {
    tag.tag: kind for kind, tag in map(get_args, get_args(get_args(Distribution)[0]))
}

DISTRIBUTIONS = tuple(_NAMES)
"""The names of all distributions."""

Space = dict[str, Distribution]
"""Dotted key of the trial, to what to try for it."""

Assignment = dict[str, Value]
"""Dotted key of the trial, to the value that one trial takes."""
