"""How configurations are found. A new way is a class here and a name in the union.

Grid, random and quasi-random search are plans: a list drawn up before anything starts, the same whatever order trials
finish in. The others are adaptive: each says which of Optuna's samplers an Optuna study asks (`tuner.study`).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from tuner.conditions import combinations, draw, is_active
from tuner.config import Config
from tuner.distribution import Value
from tuner.errors import Problem, allowed
from tuner.space import Assignment, Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

Allows = Callable[[Assignment], bool]
"""Whether a configuration may be tried at all."""

_MOST_PLANNED = 100_000  # configurations, each of which is checked before anything starts
_DRAWS = 1000  # in a row that were all known: by then a finite space is as good as exhausted


class _Search(Config):
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the experiment: of what is drawn, and with each trial's configuration of that trial."""
    initial: list[dict[str, Any]] = Field(default_factory=list)
    """Configurations to try first: searched keys and their values; a key that is left out is drawn."""

    def check(self, space: Space) -> Iterator[Problem]:
        """What keeps this space from being searched this way."""
        for place, configuration in enumerate(self.initial):
            for name, value in configuration.items():
                key = f"search.initial.{place}.{name}"
                if name not in space:
                    yield Problem("is not searched", key, hint=allowed(name, space))
                    continue
                try:
                    space[name].encode(value)
                except ValueError as error:
                    yield Problem(f"is outside the space: {error}", key)
                if not is_active(space, name, configuration):
                    others = ", ".join(f"{other}: {wanted}" for other, wanted in space[name].when.items())
                    hint = f"its condition is {others}; write that into it, too, or leave {name} out"
                    yield Problem("does not count in this configuration", key, hint=hint)

    def plan(self, space: Space, allows: Allows) -> list[Assignment] | None:
        """What each trial takes for the searched keys; None where that hangs on what came out before."""
        return None

    def having(self, trials: int) -> "_Search":
        """The same with so many trials.

        Raises:
            ValueError: How many there are is not for anybody to say.
        """
        raise ValueError(f"{getattr(self, 'kind', '')} search has tried everything that it would")


class Grid(_Search):
    """Every combination of the values in the space, the last key changing fastest."""

    kind: Literal["grid"] = "grid"

    def check(self, space: Space) -> Iterator[Problem]:
        yield from super().check(space)
        for name, distribution in space.items():
            if distribution.values() is None:
                hint = "write {grid: [...]}, give it a step, or use search: {kind: random, trials: 20}"
                yield Problem("a grid search cannot try a continuous range", key=f"space.{name}", hint=hint)
        # Where there is a continuum, there are none.
        if next(islice(combinations(space), _MOST_PLANNED, None), None) is not None:
            hint = "leave values out, or use search: {kind: random, trials: 20}"
            yield Problem(f"the grid has more than {_MOST_PLANNED} combinations", "space", hint=hint)

    def plan(self, space: Space, allows: Allows) -> list[Assignment]:
        """Every combination, those of `initial` first."""

        def place(assignment: Assignment) -> int:
            begins = (i for i, first in enumerate(self.initial) if first.items() <= assignment.items())
            return next(begins, len(self.initial))

        return sorted(filter(allows, combinations(space)), key=place)


class _Counted(_Search):
    trials: int = Field(30, ge=1)
    """Number of trials; fewer where the space has fewer configurations."""

    def check(self, space: Space) -> Iterator[Problem]:
        yield from super().check(space)
        if not space:
            hint = "say what to vary, such as optimizer.lr: {loguniform: [1e-4, 1e-1]}, or use search: {kind: grid}"
            yield Problem(f"{getattr(self, 'kind', '')} search has nothing to vary", key="space", hint=hint)
        if self.trials > _MOST_PLANNED and not isinstance(self, Adaptive):
            hint = "search less at a time, or use search: {kind: bayesian}, which plans nothing ahead, and a timeout"
            yield Problem(
                f"{self.trials} trials are more than the {_MOST_PLANNED} of a plan", "search.trials", hint=hint
            )
        if len(self.initial) > self.trials:
            message = f"{len(self.initial)} configurations are to be tried first, in {self.trials} trials"
            yield Problem(message, "search.initial", hint="raise search.trials")

    def having(self, trials: int) -> "_Counted":
        return self.model_copy(update={"trials": trials})

    def _distinct(self, draws: Iterable[Callable[[], Assignment]], allows: Allows) -> list[Assignment]:
        """For each of `draws` the first allowed configuration out of it that did not come before."""
        drawn: list[Assignment] = []
        known: set[str] = set()
        for number, one in enumerate(draws):
            for _ in range(_DRAWS):
                assignment = one()
                if repr(assignment) not in known and allows(assignment):
                    known.add(repr(assignment))
                    drawn.append(assignment)
                    break
            else:
                if number >= len(self.initial):
                    break
        return drawn

    def _first(self, number: int) -> Assignment:
        return self.initial[number] if number < len(self.initial) else {}


class Random(_Counted):
    """Independent draws from the space, no configuration twice: it would give the same numbers again."""

    kind: Literal["random"] = "random"
    trials: int = Field(10, ge=1)
    """Number of trials; fewer where the space has fewer configurations."""

    def plan(self, space: Space, allows: Allows) -> list[Assignment]:
        """A longer plan begins with the shorter one."""

        def drawer(number: int) -> Callable[[], Assignment]:
            rng = np.random.default_rng([self.seed, number])
            first = self._first(number)
            return lambda: draw(space, lambda name, what: first[name] if name in first else what.sample(rng))

        return self._distinct(map(drawer, range(self.trials)), allows)


class QMC(_Counted):
    """Quasi-random search: a scrambled Sobol sequence, which fills the space more evenly than chance (Owen, 1998).

    It is drawn by SciPy over all keys at once, choices and conditions included; Optuna's own draws those at random,
    and the first trial, too.
    """

    kind: Literal["qmc"] = "qmc"

    def plan(self, space: Space, allows: Allows) -> list[Assignment]:
        """A longer plan begins with the shorter one."""
        from scipy.stats.qmc import Sobol

        points = iter(_points(Sobol(max(1, len(space)), rng=np.random.default_rng(self.seed))))

        def drawer(number: int) -> Callable[[], Assignment]:
            first = self._first(number)

            def one() -> Assignment:
                units = dict(zip(space, next(points), strict=False))

                def value(name: str, what: Any) -> Value:
                    return first[name] if name in first else what.decode(what.axis().at(units[name]))

                return draw(space, value)

            return one

        return self._distinct(map(drawer, range(self.trials)), allows)


def _points(sequence: Any) -> Iterator[list[float]]:
    size = 64  # a power of two keeps the sequence balanced
    while True:
        yield from sequence.random(size).tolist()


class Adaptive(_Counted):
    """A search that learns from its trials: an Optuna study is asked and told, one trial at a time."""

    warm_start: str | None = None
    """An MLflow experiment, by name, or a run of a job, by id, whose trials the sampler learns from first."""
    duplicates: bool = False
    """Whether a configuration may be tried again, with another seed; the sampler then sees the noise."""

    def build(self, space: Space, objectives: int, prunes: bool, seed: int) -> "BaseSampler":
        """The Optuna sampler that is asked.

        Args:
            space: What is searched.
            objectives: How many values a trial has.
            prunes: Whether a scheduler ends trials early.
            seed: Seed of its random numbers.
        """
        raise NotImplementedError

    def startup_plan(self, space: Space, objectives: int, prunes: bool, allows: Allows) -> list[Assignment]:
        """The configurations that are tried before the sampler knows enough; none where it draws them itself."""
        return []

    def explain(self, space: Space, objectives: int, prunes: bool) -> str:
        """What the user should know of the sampler that was chosen, and why; empty where there was no choice."""
        return ""


class Bayesian(Adaptive):
    """Model the objective, and try where it promises most."""

    kind: Literal["bayesian"] = "bayesian"
    sampler: Literal["auto", "tpe", "gp"] = "auto"
    """tpe: densities of good and bad (Bergstra et al., 2011); gp: a Gaussian process; auto chooses by the space."""
    startup: int | None = Field(None, ge=1)
    """Trials before the model takes over; null for 10, or of a gp for two more than keys, if those are fewer."""

    def build(self, space: Space, objectives: int, prunes: bool, seed: int) -> "BaseSampler":
        from optuna.samplers import TPESampler

        from tuner.gaussian import WarpedGPSampler

        startup = self._startup(space, objectives, prunes)
        if self._choice(space, objectives, prunes)[0] == "gp":
            return WarpedGPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
        # Conditions split the space into groups of keys that come together: each is modelled as a whole.
        grouped = any(distribution.when for distribution in space.values())
        return TPESampler(
            seed=seed,
            n_startup_trials=startup,
            multivariate=True,
            group=grouped,
            constant_liar=True,
            warn_independent_sampling=False,
        )

    def startup_plan(self, space: Space, objectives: int, prunes: bool, allows: Allows) -> list[Assignment]:
        """Of a Gaussian process a Sobol sequence, which leaves no part of the space out by chance; TPE draws its own.

        That one is no better for it: it needs many draws from each of its groups of keys.
        """
        if self._choice(space, objectives, prunes)[0] == "tpe":
            return []
        trials = min(self._startup(space, objectives, prunes), self.trials)
        return QMC(trials=trials, seed=self.seed).plan(space, allows)

    def _startup(self, space: Space, objectives: int, prunes: bool) -> int:
        if self.startup is not None:
            return self.startup
        # A Gaussian process has a use for its first points as soon as there are a few more than keys.
        is_gp = self._choice(space, objectives, prunes)[0] == "gp"
        return min(len(space) + 2, _STARTUP) if is_gp else _STARTUP

    def explain(self, space: Space, objectives: int, prunes: bool) -> str:
        if self.sampler != "auto":
            return ""
        choice, why = self._choice(space, objectives, prunes)
        names = {"gp": "a Gaussian process (gp)", "tpe": "TPE (tpe)"}
        return f"{names[choice]} is the sampler: {why}"

    def _choice(self, space: Space, objectives: int, prunes: bool) -> tuple[str, str]:
        if self.sampler != "auto":
            return self.sampler, "as asked for"
        categories = sum(distribution.axis().kind == "category" for distribution in space.values())
        if any(distribution.when for distribution in space.values()):
            return "tpe", "the space has conditions"
        if prunes:
            return "tpe", "it learns from trials that the scheduler ends early, too"
        if objectives > 1:
            return "tpe", "with several objectives a Gaussian process takes seconds a suggestion"
        if categories > len(space) / 2:
            return "tpe", "most of the space are choices without an order"
        if len(space) > _GP_MOST_KEYS:
            return "tpe", f"the space has more than {_GP_MOST_KEYS} keys"
        if self.trials > _GP_MOST_TRIALS:
            return "tpe", f"with more than {_GP_MOST_TRIALS} trials a Gaussian process takes seconds a suggestion"
        return "gp", f"{len(space)} keys without conditions, {self.trials} trials that run to their end"


_STARTUP = 10
_GP_MOST_KEYS = 20
_GP_MOST_TRIALS = 200


class CMAES(Adaptive):
    """Covariance matrix adaptation (Hansen and Ostermeier, 2001): for many trials over a few real numbers."""

    kind: Literal["cmaes"] = "cmaes"
    trials: int = Field(100, ge=1)
    """Number of trials."""
    sigma: float | None = Field(None, gt=0, lt=1)
    """Initial step as a share of the ranges; null for a sixth."""
    population: int | None = Field(None, ge=3)
    """Trials a generation; null for 4 + 3 ln(number of keys)."""

    def check(self, space: Space) -> Iterator[Problem]:
        yield from super().check(space)
        for name, distribution in space.items():
            hint = "use search: {kind: bayesian} or {kind: evolution}"
            if distribution.axis().kind == "category":
                yield Problem("cmaes needs numbers, and these have no order", f"space.{name}", hint=hint)
            if distribution.when:
                yield Problem("cmaes needs every key in every trial", f"space.{name}.when", hint=hint)
        if len(space) == 1:
            yield Problem("cmaes needs two keys or more", "space", hint="use search: {kind: bayesian}")

    def build(self, space: Space, objectives: int, prunes: bool, seed: int) -> "BaseSampler":
        from optuna.samplers import CmaEsSampler

        return CmaEsSampler(
            seed=seed,
            sigma0=self.sigma,
            popsize=self.population,
            warn_independent_sampling=False,
            consider_pruned_trials=prunes,
        )


class Evolution(Adaptive):
    """A genetic search: NSGA-II (Deb et al., 2002) or NSGA-III (Deb and Jain, 2014), for one objective or several."""

    kind: Literal["evolution"] = "evolution"
    trials: int = Field(100, ge=1)
    """Number of trials."""
    algorithm: Literal["nsga2", "nsga3"] = "nsga2"
    """nsga3 spreads better over four and more objectives."""
    population: int | None = Field(None, ge=2)
    """Trials a generation; null for a fifth of all, between 4 and 50."""
    mutation: float | None = Field(None, ge=0, le=1)
    """Chance that a child's key moves, a choice's that it is drawn anew; null for one key a child."""
    crossover: float = Field(0.9, ge=0, le=1)
    """Chance that a child has two parents."""

    def check(self, space: Space) -> Iterator[Problem]:
        yield from super().check(space)
        if self.population is not None and self.population > self.trials:
            message = f"a generation of {self.population} is more than {self.trials} trials: nothing would evolve"
            yield Problem(message, "search.population", hint="raise search.trials")

    def build(self, space: Space, objectives: int, prunes: bool, seed: int) -> "BaseSampler":
        from optuna.samplers import NSGAIIISampler, NSGAIISampler
        from optuna.samplers.nsgaii import BLXAlphaCrossover, PolynomialMutation

        algorithms: dict[str, type[NSGAIISampler | NSGAIIISampler]] = {"nsga2": NSGAIISampler, "nsga3": NSGAIIISampler}
        return algorithms[self.algorithm](
            seed=seed,
            # Optuna's own crossover makes no new number: children would be known already, or drawn anew.
            crossover=BLXAlphaCrossover(),
            mutation=PolynomialMutation(),
            population_size=self.population or min(max(4, math.ceil(self.trials / 5)), 50),
            mutation_prob=self.mutation,
            crossover_prob=self.crossover,
        )


SearchConfig = Annotated[Grid | Random | QMC | Bayesian | CMAES | Evolution, Field(discriminator="kind")]
