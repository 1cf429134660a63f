"""What every distribution of a search space can do, and those of listed values."""

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
    """Whether two values are one: 1 and 1.0 are; 1 and true are not, though Python has them equal, at any depth."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def place_in(values: Sequence[Value], value: Value) -> int | None:
    """The first place of a value among others; None where it is none of them."""
    return next((place for place, other in enumerate(values) if same(value, other)), None)


class BaseDistribution(Config):
    """What to try for one hyperparameter."""

    when: dict[str, Any] = Field(default_factory=dict)
    """Other searched keys and the value (or a list of values) that they must have; else this one is left alone."""

    @abstractmethod
    def axis(self) -> Axis:
        """What a sampler sees of it."""

    @abstractmethod
    def decode(self, number: float) -> Value:
        """The value that a number of its axis stands for."""

    @abstractmethod
    def encode(self, value: Value) -> float:
        """The number of its axis that stands for a value. Raises ValueError where the value is outside."""

    def unit(self, value: Value) -> float:
        """Where in [0, 1] a value lies."""
        return self.axis().unit(self.encode(value))

    @abstractmethod
    def moved(self, value: Value, factor: float) -> Value:
        """A value near another: a number times `factor`, a choice's neighbour up (`factor` above 1) or down."""

    @abstractmethod
    def values(self) -> Sequence[Value] | None:
        """All values in order, or None where there is a continuum of them."""

    @abstractmethod
    def corners(self) -> list[Value]:
        """The values that decide whether all of it is allowed: every choice, or both ends."""

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Value:
        """One value at random."""


class _Finite(BaseDistribution):
    options: list[Value]

    def axis(self) -> Axis:
        # Numbers in order are an order for the sampler, too; words, and a choice between two, are not.
        numbers = [value for value in self.options if type(value) in (int, float)]
        steps = [b - a for a, b in pairwise(numbers)]
        is_ordered = len(numbers) == len(self.options) > 2 and (min(steps) > 0 or max(steps) < 0)
        return Axis("integer" if is_ordered else "category", 0, len(self.options) - 1)

    def decode(self, number: float) -> Value:
        return self.options[int(number)]

    def moved(self, value: Value, factor: float) -> Value:
        there = int(self.encode(value)) + (1 if factor > 1 else -1)
        return self.options[min(max(there, 0), len(self.options) - 1)]

    def encode(self, value: Value) -> float:
        place = place_in(self.options, value)
        if place is None:
            raise ValueError(f"{value!r} is none of {self.options}")
        return place

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
        for place, value in enumerate(self.options):
            if place_in(self.options[:place], value) is not None:
                raise ValueError(f"{value!r} stands twice: it would be tried twice, to the same numbers")
        return self


class Choice(_Finite):
    """One of these values, with equal chance."""

    options: list[Value] = Field(alias="choice", min_length=1)
    """The values to draw from."""
