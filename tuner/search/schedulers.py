"""Schedulers: which running trials go on. A new one is a class here and a name in the union.

Each names one of Ray Tune's and its arguments; `tuner.ray_backend.schedulers` puts it to work. Time is counted in
reports: epochs, where a trial has them.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tuner.config import Config
from tuner.config_keys import Assignment, Value
from tuner.errors import Problem
from tuner.objectives import Objective
from tuner.report_keys import TIME
from tuner.search.conditions import draw
from tuner.search.distributions import same
from tuner.search.space import Distribution, Space

_LONGEST = 100  # reports, where only the user's function knows how many it makes; Ray's own default

_Factor = Annotated[float, Field(gt=0)]


class _Scheduler(Config):
    ray_class: ClassVar[str]
    """Ray Tune's scheduler, as ``package.module:Class``."""
    prunes: ClassVar[bool] = True
    """Whether it ends trials early."""
    mutates: ClassVar[bool] = False
    """Whether it changes the configurations of running trials."""
    remembers: ClassVar[bool] = False
    """Whether it can be told of trials that are over, and judges others by them."""

    def check(self, length: int | None) -> Iterator[Problem]:
        """What keeps it from working on trials of `length` reports (None: not known)."""
        yield from ()

    def ahead(self, length: int | None, total: int) -> int:
        """How many of `total` trials it must know before the first of them can go on."""
        return 0

    def settle(self, ray_scheduler: Any) -> None:
        """Called before each mutation: bring what Ray's scheduler has gathered into an order that is no accident."""

    def mutated(
        self, space: Space, assignment: Assignment, units: Mapping[str, float], rng: np.random.Generator
    ) -> Assignment:
        """What a copy of a trial becomes.

        Args:
            space: What is searched.
            assignment: The configuration that is copied.
            units: Where in [0, 1] Ray's scheduler would have each key.
            rng: Where random numbers come from.
        """
        raise NotImplementedError

    @abstractmethod
    def arguments(self, objective: Objective, length: int | None, space: Space) -> dict[str, Any]:
        """Arguments of `ray_class`, for trials of `length` reports (None: not known)."""

    def _common(self, objective: Objective) -> dict[str, Any]:
        return {"time_attr": TIME, "metric": objective.metric, "mode": objective.mode}


class Fifo(_Scheduler):
    """Every trial runs to its end."""

    ray_class: ClassVar[str] = "ray.tune.schedulers:FIFOScheduler"
    prunes: ClassVar[bool] = False

    kind: Literal["fifo"] = "fifo"

    def arguments(self, objective: Objective, length: int | None, space: Space) -> dict[str, Any]:
        return {}


def _too_long(grace: int, length: int | None, key: str, than: str = "trial.epochs") -> Iterator[Problem]:
    if length is not None and grace >= length:
        message = f"{grace} is not below {than}, which is {length}: no trial would ever end early"
        yield Problem(message, f"scheduler.{key}", hint=f"allowed: 1 to {length - 1}" if length > 1 else "")


class ASHA(_Scheduler):
    """Asynchronous successive halving (Li et al., 2020): at each rung the best share of the trials goes on."""

    ray_class: ClassVar[str] = "ray.tune.schedulers:AsyncHyperBandScheduler"
    remembers: ClassVar[bool] = True

    kind: Literal["asha"] = "asha"
    grace: int = Field(1, ge=1)
    """Reports that every trial may make: the first rung."""
    reduction: float = Field(3, gt=1)
    """One in this many trials goes on; the next rung is so many times as far."""
    brackets: int = Field(1, ge=1)
    """Sets of rungs that trials are dealt to; each starts one rung later than the one before."""
    longest: int | None = Field(None, ge=1)
    """Reports of the longest trial; null for the trial's own epochs, or 100."""

    def check(self, length: int | None) -> Iterator[Problem]:
        if self.longest is not None and (length is None or self.longest < length):
            yield from _too_long(self.grace, self.longest, "grace", "scheduler.longest")
        else:
            yield from _too_long(self.grace, length, "grace")

    def arguments(self, objective: Objective, length: int | None, space: Space) -> dict[str, Any]:
        return self._common(objective) | {
            "grace_period": self.grace,
            "reduction_factor": self.reduction,
            "brackets": self.brackets,
            "max_t": self.longest or length or _LONGEST,
            # Who makes it to the last epoch ends by itself, and says how.
            "stop_last_trials": False,
        }


class HyperBand(_Scheduler):
    """HyperBand (Li et al., 2018): trials wait for each other at the rungs of several brackets."""

    ray_class: ClassVar[str] = "ray.tune.schedulers:HyperBandScheduler"
    kind: Literal["hyperband"] = "hyperband"
    reduction: float = Field(3, gt=1)
    """One in this many trials goes on; the next rung is so many times as far."""
    longest: int | None = Field(None, ge=1)
    """Reports of the longest trial; null for the trial's own epochs, or 100."""

    def check(self, length: int | None) -> Iterator[Problem]:
        longest = self.longest or length
        if longest is not None and self.reduction > longest:
            message = f"{self.reduction:g} is above trial.epochs, which is {longest}: no trial would ever end early"
            yield Problem(message, "scheduler.reduction")

    def ahead(self, length: int | None, total: int) -> int:
        # The largest bracket: its trials wait for each other (Ray's own formula).
        longest = self.longest or length or _LONGEST
        rounds = round(math.log(longest) / math.log(self.reduction))
        sizes = [math.ceil((rounds + 1) / (s + 1) * self.reduction**s) for s in range(rounds + 1)]
        return min(total, max(sizes))

    def arguments(self, objective: Objective, length: int | None, space: Space) -> dict[str, Any]:
        return self._common(objective) | {
            "reduction_factor": self.reduction,
            "max_t": self.longest or length or _LONGEST,
        }


class Median(_Scheduler):
    """The median rule (Golovin et al., 2017): a trial ends whose best is below the median of the others' means."""

    ray_class: ClassVar[str] = "ray.tune.schedulers:MedianStoppingRule"
    remembers: ClassVar[bool] = True

    kind: Literal["median"] = "median"
    grace: int = Field(1, ge=1)
    """Reports that every trial may make."""
    samples: int = Field(3, ge=1)
    """Other trials that must have come as far, before one is ended."""

    def check(self, length: int | None) -> Iterator[Problem]:
        yield from _too_long(self.grace, length, "grace")

    def arguments(self, objective: Objective, length: int | None, space: Space) -> dict[str, Any]:
        return self._common(objective) | {
            "grace_period": self.grace,
            "min_samples_required": self.samples,
        }


class _Population(_Scheduler):
    prunes: ClassVar[bool] = False
    mutates: ClassVar[bool] = True

    interval: int = Field(1, ge=1)
    """Reports between two looks at the population."""
    quantile: float = Field(0.25, gt=0, le=0.5)
    """Share of the population that is replaced, and share that it is replaced by."""

    def check(self, length: int | None) -> Iterator[Problem]:
        yield from _too_long(self.interval, length, "interval")

    def ahead(self, length: int | None, total: int) -> int:
        return total

    def _population(self, objective: Objective) -> dict[str, Any]:
        return self._common(objective) | {
            "perturbation_interval": self.interval,
            "quantile_fraction": self.quantile,
            "log_config": False,  # the history is in the record
            # Who is behind waits for nobody's checkpoint that is gone by then; and the history can be told again.
            "synch": True,
        }


class PBT(_Population):
    """Population based training (Jaderberg et al., 2017): the worst go on as mutated copies of the best."""

    ray_class: ClassVar[str] = "ray.tune.schedulers:PopulationBasedTraining"
    kind: Literal["pbt"] = "pbt"
    resample: float = Field(0.25, ge=0, le=1)
    """Chance that a mutated key is drawn anew; else it is perturbed."""
    factors: tuple[_Factor, _Factor] = (1.2, 0.8)
    """What a number is multiplied with when it is perturbed, above 0; a choice moves to a neighbour."""

    def mutated(
        self, space: Space, assignment: Assignment, units: Mapping[str, float], rng: np.random.Generator
    ) -> Assignment:
        def value(name: str, distribution: Distribution) -> Value:
            if name not in assignment or rng.random() < self.resample:
                return distribution.sample(rng)
            moved = distribution.moved(assignment[name], self.factors[int(rng.integers(2))])
            # Nought times anything, and a choice at the end of its row, would stay for ever.
            return distribution.sample(rng) if same(moved, assignment[name]) else moved

        return draw(space, value)

    def arguments(self, objective: Objective, length: int | None, space: Space) -> dict[str, Any]:
        # What a mutation is, is ours: it knows the distributions of the space.
        return self._population(objective) | {"custom_explore_fn": lambda config: config}


class PB2(_Population):
    """Population based bandits (Parker-Holder et al., 2020): as PBT, but a Gaussian process says where to go."""

    ray_class: ClassVar[str] = "ray.tune.schedulers.pb2:PB2"
    kind: Literal["pb2"] = "pb2"

    def settle(self, ray_scheduler: Any) -> None:
        # What it learns from stands as it came in, and that is not twice the same; and a trial that went back to its
        # checkpoint told some of it a second time.
        told_once = ray_scheduler.data.drop_duplicates(["Time", "Trial"], keep="last")
        ray_scheduler.data = told_once.sort_values(["Time", "Trial"], kind="stable", ignore_index=True)

    def arguments(self, objective: Objective, length: int | None, space: Space) -> dict[str, Any]:
        return self._population(objective) | {"hyperparam_bounds": {"units": {name: [0, 1] for name in space}}}

    def mutated(
        self, space: Space, assignment: Assignment, units: Mapping[str, float], rng: np.random.Generator
    ) -> Assignment:
        # In units the process sees each key on its own scale, logarithmic ones too.
        return draw(space, lambda name, what: what.decode(what.axis().at(min(max(units[name], 0.0), 1.0))))


SchedulerConfig = Annotated[Fifo | ASHA | HyperBand | Median | PBT | PB2, Field(discriminator="kind")]
