"""Adaptive searches: an Optuna sampler suggests configurations and learns from finished trials."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tuner.config_keys import Assignment
from tuner.errors import Problem
from tuner.formatting import counted
from tuner.search.planned import QMC, Allows, CountedSearch
from tuner.search.space import Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Adaptive(CountedSearch):
    """A search with an Optuna sampler. `tuner.search.optuna_searcher` holds the study."""

    is_planned: ClassVar[bool] = False

    warm_start: str | None = None
    """Name of an MLflow experiment, or id of a job's run, from whose trials the sampler learns first."""
    duplicates: bool = False
    """Whether a configuration may be tried again with another seed, so that the sampler sees the noise."""

    def build(self, space: Space, objectives: int, prunes: bool, seed: int) -> "BaseSampler":
        """Build the Optuna sampler.

        Args:
            space: The search space.
            objectives: Number of objectives.
            prunes: Whether the scheduler prunes trials.
            seed: Seed of the sampler.
        """
        raise NotImplementedError

    def startup_plan(self, space: Space, objectives: int, prunes: bool, allows: Allows) -> list[Assignment]:
        """The configurations to try before the sampler is asked; empty if the sampler draws them itself."""
        return []

    @property
    def allows_duplicates(self) -> bool:
        return self.duplicates

    @property
    def warm_start_source(self) -> str | None:
        return self.warm_start


class Bayesian(Adaptive):
    """Bayesian optimisation: model the objective, and try the configurations that promise most."""

    kind: Literal["bayesian"] = "bayesian"
    sampler: Literal["auto", "tpe", "gp"] = "auto"
    """tpe: tree-structured Parzen estimator (Bergstra et al., 2011); gp: Gaussian process; auto: one of them."""
    startup: int | None = Field(None, ge=1)
    """Trials before the model is used; null for 10, or with gp for the number of keys plus 2 if that is less."""

    def build(self, space: Space, objectives: int, prunes: bool, seed: int) -> "BaseSampler":
        from optuna.samplers import TPESampler

        from tuner.search.warped_gp import WarpedGPSampler

        startup = self._startup(space, objectives, prunes)
        if self._choice(space, objectives, prunes)[0] == "gp":
            return WarpedGPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
        # Conditions split the space into groups of keys that occur together; TPE models each group jointly.
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
        """A Sobol sequence for a Gaussian process, because it covers the space more evenly than random draws.

        TPE draws its own startup trials; a Sobol sequence did not improve it.
        """
        if self._choice(space, objectives, prunes)[0] == "tpe":
            return []
        trials = min(self._startup(space, objectives, prunes), self.trials)
        return QMC(trials=trials, seed=self.seed).plan(space, allows)

    def _startup(self, space: Space, objectives: int, prunes: bool) -> int:
        if self.startup is not None:
            return self.startup
        # A Gaussian process is useful as soon as it has a few more points than there are keys.
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
            return self.sampler, "as configured"
        categories = sum(distribution.axis().kind == "category" for distribution in space.values())
        if any(distribution.when for distribution in space.values()):
            return "tpe", "the space has conditions"
        if prunes:
            return "tpe", "it also learns from trials that the scheduler prunes"
        if objectives > 1:
            return "tpe", "with several objectives a Gaussian process takes seconds per suggestion"
        if categories > len(space) / 2:
            return "tpe", "most keys of the space are choices without an order"
        if len(space) > _GP_MAX_KEYS:
            return "tpe", f"the space has more than {_GP_MAX_KEYS} keys"
        if self.trials > _GP_MAX_TRIALS:
            return "tpe", f"with more than {_GP_MAX_TRIALS} trials a Gaussian process takes seconds per suggestion"
        return "gp", f"{counted(len(space), 'key')} without conditions, {counted(self.trials, 'trial')} without pruning"


_STARTUP = 10
_GP_MAX_KEYS = 20
_GP_MAX_TRIALS = 200


class CMAES(Adaptive):
    """CMA-ES, covariance matrix adaptation (Hansen and Ostermeier, 2001): for many trials and a few real numbers."""

    max_objectives: ClassVar[int | None] = 1
    learns_constraints: ClassVar[bool] = False

    kind: Literal["cmaes"] = "cmaes"
    trials: int = Field(100, ge=1)
    """Number of trials."""
    sigma: float | None = Field(None, gt=0, lt=1)
    """Initial step size as a share of the ranges; null for a sixth."""
    population: int | None = Field(None, ge=3)
    """Trials per generation; null for 4 + 3 ln(number of keys)."""

    def check(self, space: Space) -> Iterator[Problem]:
        yield from super().check(space)
        for name, distribution in space.items():
            hint = "use search: {kind: bayesian} or {kind: evolution}"
            if distribution.axis().kind == "category":
                yield Problem("cmaes needs numbers, but these values have no order", f"space.{name}", hint=hint)
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
    """NSGA-II (Deb et al., 2002) or NSGA-III (Deb and Jain, 2014): genetic algorithms for one or several objectives."""

    kind: Literal["evolution"] = "evolution"
    trials: int = Field(100, ge=1)
    """Number of trials."""
    algorithm: Literal["nsga2", "nsga3"] = "nsga2"
    """Algorithm; nsga3 gives a more even Pareto front for four and more objectives."""
    population: int | None = Field(None, ge=2)
    """Trials per generation; null for a fifth of all trials, between 4 and 50."""
    mutation: float | None = Field(None, ge=0, le=1)
    """Mutation probability of a child's key: numbers change, choices are drawn again; null for 1 / number of keys."""
    crossover: float = Field(0.9, ge=0, le=1)
    """Probability that a child has two parents."""

    def check(self, space: Space) -> Iterator[Problem]:
        yield from super().check(space)
        if self.population is not None and self.population > self.trials:
            message = f"a generation of {self.population} trials is larger than search.trials, which is {self.trials}"
            yield Problem(message, "search.population", hint="lower it, or raise search.trials")

    def build(self, space: Space, objectives: int, prunes: bool, seed: int) -> "BaseSampler":
        from optuna.samplers import NSGAIIISampler, NSGAIISampler
        from optuna.samplers.nsgaii import BLXAlphaCrossover, PolynomialMutation

        algorithms: dict[str, type[NSGAIISampler | NSGAIIISampler]] = {"nsga2": NSGAIISampler, "nsga3": NSGAIIISampler}
        return algorithms[self.algorithm](
            seed=seed,
            # Optuna's default crossover only recombines values of the parents, so that children are often duplicates.
            crossover=BLXAlphaCrossover(),
            mutation=PolynomialMutation(),
            population_size=self.population or min(max(4, math.ceil(self.trials / 5)), 50),
            mutation_prob=self.mutation,
            crossover_prob=self.crossover,
        )
