"""Configuration of Ray Tune's schedulers. To add one, write a class here and add it to the union.

Each class names a scheduler of Ray Tune and its arguments; `tuner.ray_backend.schedulers` creates it. Time is counted
in reports, which are epochs unless a trial calls the user's function.
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

_LONGEST = 100  # reports, if the number is unknown; Ray's own default
_NONE = "scheduler: {kind: fifo} prunes none, whatever the epochs"

_Factor = Annotated[float, Field(gt=0)]


class _Scheduler(Config):
    ray_class: ClassVar[str]
    """Ray Tune's scheduler, as ``package.module:Class``."""
    prunes: ClassVar[bool] = True
    """Whether it prunes trials."""
    mutates: ClassVar[bool] = False
    """Whether it changes the configurations of running trials."""
    accepts_history: ClassVar[bool] = False
    """Whether the reports of finished trials can be replayed to it when a job resumes."""

    def check(self, length: int | None) -> Iterator[Problem]:
        """The reasons why it cannot be used with trials of at most `length` reports (None: unknown)."""
        yield from ()

    def ahead(self, length: int | None, total: int) -> int:
        """How many of `total` trials have to exist before the first of them can continue at a rung."""
        return 0

    def sort_history(self, ray_scheduler: Any) -> None:
        """Make the data that Ray's scheduler has collected independent of the order of events, before a mutation."""

    def mutated(
        self, space: Space, assignment: Assignment, units: Mapping[str, float], rng: np.random.Generator
    ) -> Assignment:
        """The configuration of a trial that becomes a mutated copy of another one.

        Args:
            space: The search space.
            assignment: The configuration that is copied.
            units: The value that Ray's scheduler proposes for each key, as a position on its axis in [0, 1].
            rng: Generator of random numbers.
        """
        raise NotImplementedError

    @abstractmethod
    def arguments(self, objective: Objective, length: int | None, space: Space) -> dict[str, Any]:
        """The arguments of `ray_class` for trials of at most `length` reports (None: unknown)."""

    def _common(self, objective: Objective) -> dict[str, Any]:
        return {"time_attr": TIME, "metric": objective.metric, "mode": objective.mode}


class Fifo(_Scheduler):
    """First in, first out: every trial runs to its end."""

    ray_class: ClassVar[str] = "ray.tune.schedulers:FIFOScheduler"
    prunes: ClassVar[bool] = False

    kind: Literal["fifo"] = "fifo"

    def arguments(self, objective: Objective, length: int | None, space: Space) -> dict[str, Any]:
        return {}


def _too_long(grace: int, length: int | None, key: str, than: str = "trial.epochs") -> Iterator[Problem]:
    if length is not None and grace >= length:
        message = f"{grace} is not below {than}, which is {length}: no trial would be pruned"
        yield Problem(message, f"scheduler.{key}", hint=f"allowed: 1 to {length - 1}; {_NONE}" if length > 1 else _NONE)


class ASHA(_Scheduler):
    """ASHA, asynchronous successive halving (Li et al., 2020): at each rung the best share of the trials continues."""

    ray_class: ClassVar[str] = "ray.tune.schedulers:AsyncHyperBandScheduler"
    accepts_history: ClassVar[bool] = True

    kind: Literal["asha"] = "asha"
    grace: int = Field(1, ge=1)
    """Reports before a trial can be pruned: the first rung."""
    reduction: float = Field(3, gt=1)
    """Reduction factor: at each rung one in this many trials continues; the next rung is this many times as far."""
    brackets: int = Field(1, ge=1)
    """Number of brackets; the first rung of each is one rung later than that of the bracket before."""
    longest: int | None = Field(None, ge=1)
    """Largest number of reports of a trial; null for the trial's epochs, or 100 if unknown."""

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
            # A trial that reaches the last epoch ends itself, with its own status.
            "stop_last_trials": False,
        }


class HyperBand(_Scheduler):
    """HyperBand (Li et al., 2018): successive halving in several brackets, synchronous at their rungs."""

    ray_class: ClassVar[str] = "ray.tune.schedulers:HyperBandScheduler"
    kind: Literal["hyperband"] = "hyperband"
    reduction: float = Field(3, gt=1)
    """Reduction factor: at each rung one in this many trials continues; the next rung is this many times as far."""
    longest: int | None = Field(None, ge=1)
    """Largest number of reports of a trial; null for the trial's epochs, or 100 if unknown."""

    def check(self, length: int | None) -> Iterator[Problem]:
        longest = self.longest or length
        if longest is not None and self.reduction > longest:
            message = f"{self.reduction:g} is above trial.epochs, which is {longest}: no trial would be pruned"
            yield Problem(message, "scheduler.reduction", hint=f"more epochs, or a smaller reduction; {_NONE}")

    def ahead(self, length: int | None, total: int) -> int:
        # The size of the largest bracket, whose trials wait for each other, by Ray's formula.
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
    """The median stopping rule (Golovin et al., 2017).

    It prunes a trial whose best value is worse than the median of the other trials' mean values up to the same report.
    """

    ray_class: ClassVar[str] = "ray.tune.schedulers:MedianStoppingRule"
    accepts_history: ClassVar[bool] = True

    kind: Literal["median"] = "median"
    grace: int = Field(1, ge=1)
    """Reports before a trial can be pruned."""
    samples: int = Field(3, ge=1)
    """Number of other trials that must have as many reports before a trial is pruned."""

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
    """Reports between two perturbations."""
    quantile: float = Field(0.25, gt=0, le=0.5)
    """Share of the population that is replaced, and share of the best trials that it copies."""

    def check(self, length: int | None) -> Iterator[Problem]:
        yield from _too_long(self.interval, length, "interval")

    def ahead(self, length: int | None, total: int) -> int:
        return total

    def _population(self, objective: Objective) -> dict[str, Any]:
        return self._common(objective) | {
            "perturbation_interval": self.interval,
            "quantile_fraction": self.quantile,
            "log_config": False,  # the journal has the history
            # In synchronous mode no trial copies a deleted checkpoint, and a resumed job can replay the history.
            "synch": True,
        }


class PBT(_Population):
    """Population based training (Jaderberg et al., 2017): the worst trials continue as mutated copies of the best."""

    ray_class: ClassVar[str] = "ray.tune.schedulers:PopulationBasedTraining"
    kind: Literal["pbt"] = "pbt"
    resample: float = Field(0.25, ge=0, le=1)
    """Probability that a mutated key is drawn again; otherwise it is perturbed."""
    factors: tuple[_Factor, _Factor] = (1.2, 0.8)
    """Factors above 0 for the perturbation of a number; a perturbed choice becomes the next or the previous one."""

    def mutated(
        self, space: Space, assignment: Assignment, units: Mapping[str, float], rng: np.random.Generator
    ) -> Assignment:
        def value(name: str, distribution: Distribution) -> Value:
            if name not in assignment or rng.random() < self.resample:
                return distribution.sample(rng)
            moved = distribution.perturbed(assignment[name], self.factors[int(rng.integers(2))])
            # A value that the perturbation does not change, such as 0 or the last choice, would never change.
            return distribution.sample(rng) if same(moved, assignment[name]) else moved

        return draw(space, value)

    def arguments(self, objective: Objective, length: int | None, space: Space) -> dict[str, Any]:
        # Ray only copies the configuration; `mutated` changes it, because it uses the distributions of the space.
        return self._population(objective) | {"custom_explore_fn": lambda config: config}


class PB2(_Population):
    """Population based bandits (Parker-Holder et al., 2020): PBT with a Gaussian process that suggests the values."""

    ray_class: ClassVar[str] = "ray.tune.schedulers.pb2:PB2"
    kind: Literal["pb2"] = "pb2"

    def sort_history(self, ray_scheduler: Any) -> None:
        # The rows are in the order in which reports arrive, which varies; a trial that resumed repeats some of them.
        distinct = ray_scheduler.data.drop_duplicates(["Time", "Trial"], keep="last")
        ray_scheduler.data = distinct.sort_values(["Time", "Trial"], kind="stable", ignore_index=True)

    def arguments(self, objective: Objective, length: int | None, space: Space) -> dict[str, Any]:
        return self._population(objective) | {"hyperparam_bounds": {"units": {name: [0, 1] for name in space}}}

    def mutated(
        self, space: Space, assignment: Assignment, units: Mapping[str, float], rng: np.random.Generator
    ) -> Assignment:
        # The Gaussian process works with positions on the axes, so that logarithmic keys keep their scale.
        return draw(
            space,
            lambda name, distribution: distribution.decode(distribution.axis().at(min(max(units[name], 0.0), 1.0))),
        )


SchedulerConfig = Annotated[Fifo | ASHA | HyperBand | Median | PBT | PB2, Field(discriminator="kind")]
