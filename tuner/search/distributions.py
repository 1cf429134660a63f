"""The base class of distributions, and the distributions over listed values."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from tuner.config import Config
from tuner.config_keys import Value
from tuner.search.encoding import Axis


def same(one: Value, other: Value) -> bool:
    """Whether two values are equal, at any depth. 1 equals 1.0 but, unlike in Python, not true."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def index_of(values: Sequence[Value], value: Value) -> int | None:
    """The index of the first equal value; None if there is none."""
    return next((index for index, other in enumerate(values) if same(value, other)), None)


class BaseDistribution(Config):
    """The values to try for a hyperparameter."""

    when: dict[str, Any] = Field(default_factory=dict)
    """Condition: other searched keys, and the value or list of values that they must have for this key to be active."""

    @abstractmethod
    def axis(self) -> Axis:
        """The numbers that a sampler suggests for this distribution."""

    @abstractmethod
    def decode(self, number: float) -> Value:
        """Convert a number of the axis to a value."""

    @abstractmethod
    def encode(self, value: Value) -> float:
        """Convert a value to a number of the axis.

        Raises:
            ValueError: The value is outside of the distribution.
        """

    def unit(self, value: Value) -> float:
        """The position of a value on the axis, in [0, 1]."""
        return self.axis().unit(self.encode(value))

    @abstractmethod
    def perturbed(self, value: Value, factor: float) -> Value:
        """Perturb a value: multiply a number by `factor`; take the next choice if `factor` > 1, else the previous."""

    @abstractmethod
    def values(self) -> Sequence[Value] | None:
        """All values in order; None if the distribution is continuous."""

    @abstractmethod
    def corners(self) -> list[Value]:
        """Every choice, or both ends of a range: if they are valid, so are the other values."""

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Value:
        """Draw a value at random."""


class _Finite(BaseDistribution):
    options: list[Value]

    def axis(self) -> Axis:
        # Sorted numbers are an ordered axis; other values, or only two of them, are categories.
        numbers = [value for value in self.options if type(value) in (int, float)]
        steps = [b - a for a, b in pairwise(numbers)]
        is_ordered = len(numbers) == len(self.options) > 2 and (min(steps) > 0 or max(steps) < 0)
        return Axis("integer" if is_ordered else "category", 0, len(self.options) - 1)

    def decode(self, number: float) -> Value:
        return self.options[int(number)]

    def perturbed(self, value: Value, factor: float) -> Value:
        index = int(self.encode(value)) + (1 if factor > 1 else -1)
        return self.options[min(max(index, 0), len(self.options) - 1)]

    def encode(self, value: Value) -> float:
        index = index_of(self.options, value)
        if index is None:
            raise ValueError(f"{value!r} is not one of {self.options}")
        return index

    def values(self) -> list[Value]:
        return list(self.options)

    def corners(self) -> list[Value]:
        return list(self.options)

    def sample(self, rng: np.random.Generator) -> Value:
        return self.options[int(rng.integers(len(self.options)))]


class Grid(_Finite):
    """Listed values. Grid search tries each of them; other searches draw them with equal probability."""

    options: list[Value] = Field(alias="grid", min_length=1)
    """Values to try."""

    @model_validator(mode="after")
    def _no_value_twice(self) -> "Grid":
        for index, value in enumerate(self.options):
            if index_of(self.options[:index], value) is not None:
                raise ValueError(f"{value!r} is listed twice: both trials would give the same result")
        return self


class Choice(_Finite):
    """Listed values, drawn with equal probability."""

    options: list[Value] = Field(alias="choice", min_length=1)
    """Values to draw from."""
