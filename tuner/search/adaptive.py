"""Searches that learn from their trials. Each names the sampler that `tuner.search.optuna_searcher` asks."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tuner.config_keys import Assignment
from tuner.errors import Problem
from tuner.search.planned import QMC, Allows, CountedSearch
from tuner.search.space import Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Adaptive(CountedSearch):
    """A search that learns from its trials: an Optuna study is asked and told, one trial at a time."""

    is_planned: ClassVar[bool] = False

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

    @property
    def tries_again(self) -> bool:
        return self.duplicates

    @property
    def teacher(self) -> str | None:
        return self.warm_start


class Bayesian(Adaptive):
    """Model the objective, and try where it promises most."""

    kind: Literal["bayesian"] = "bayesian"
    sampler: Literal["auto", "tpe", "gp"] = "auto"
    """tpe: densities of good and bad (Bergstra et al., 2011); gp: a Gaussian process; auto chooses by the space."""
    startup: int | None = Field(None, ge=1)
    """Trials before the model takes over; null for 10, or of a gp for two more than keys, if those are fewer."""

    def build(self, space: Space, objectives: int, prunes: bool, seed: int) -> "BaseSampler":
        from optuna.samplers import TPESampler

        from tuner.search.warped_gp import WarpedGPSampler

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

    most_objectives: ClassVar[int | None] = 1
    learns_constraints: ClassVar[bool] = False

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
