"""The compared searches: tuner's searchers and plain Optuna studies, with one trial at a time or four in parallel."""

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.functions import Function, Values
from tuner.search.adaptive import Bayesian
from tuner.search.optuna_searcher import Study
from tuner.search.planned import Random
from tuner.search.searcher import Plan, Searcher, TrialOutcome

Sampler = Literal["random", "tpe", "gp"]


@dataclass(frozen=True)
class Contestant:
    """A search that is compared.

    Args:
        owner: ``ours`` for tuner's searcher, ``optuna`` for a plain Optuna study with Optuna's defaults.
        sampler: The sampler that suggests configurations.
        parallel: The number of trials that run at the same time.
    """

    owner: Literal["ours", "optuna"]
    sampler: Sampler
    parallel: int = 1

    @property
    def name(self) -> str:
        whose = "" if self.sampler == "random" else "bayesian " if self.owner == "ours" else "Optuna "
        return f"{whose}{self.sampler}{', 4 parallel' if self.parallel > 1 else ''}"


@dataclass(frozen=True)
class Search:
    """A finished search.

    Args:
        values: The value of each trial in the order in which they ended; infinity for a failed trial.
        seconds: Mean seconds a suggestion.
    """

    values: list[float]
    seconds: float


def resolve(sampler: str, function: Function, trials: int) -> Sampler:
    """Return the sampler that ``kind: bayesian`` uses in this space; it differs from `sampler` for ``auto``."""
    if sampler == "random":
        return "random"
    built = Bayesian.model_validate({"sampler": sampler, "trials": trials}).build(function.space, 1, False, 0)
    kinds: dict[str, Sampler] = {"TPESampler": "tpe", "WarpedGPSampler": "gp"}
    return kinds[type(built).__name__]


def run(contestant: Contestant, function: Function, trials: int, seed: int) -> Search:
    """Run one search. Trials end in the order in which they were suggested; after each, the next one is suggested."""
    asker = opened(contestant, function, trials, seed)
    running: deque[tuple[int, Values]] = deque()
    values: list[float] = []
    asked, seconds = 0, 0.0
    while len(values) < trials:
        started = time.perf_counter()
        while asked < trials and len(running) < contestant.parallel:
            running.append((asked, asker.ask()))
            asked += 1
        seconds += time.perf_counter() - started
        number, configuration = running.popleft()
        value = function.value(configuration)
        values.append(math.inf if math.isnan(value) else value)
        started = time.perf_counter()
        asker.tell(number, configuration, value)
        seconds += time.perf_counter() - started
    return Search(values, seconds / trials)


class Asker(ABC):
    """A search with Optuna's ask-and-tell interface; trials are numbered from 0."""

    @abstractmethod
    def ask(self) -> Values:
        """Return the next configuration."""

    @abstractmethod
    def tell(self, number: int, configuration: Values, value: float) -> None:
        """Pass the value of a trial to the search; NaN if the trial failed."""

    @abstractmethod
    def learn(self, configuration: Values, value: float) -> None:
        """Add a trial of an earlier search."""


def opened(contestant: Contestant, function: Function, trials: int, seed: int) -> Asker:
    """Create a search that has no trials yet."""
    return (Ours if contestant.owner == "ours" else PlainOptuna)(contestant, function, trials, seed)


class Ours(Asker):
    """A searcher of tuner, used as a job uses it."""

    def __init__(self, contestant: Contestant, function: Function, trials: int, seed: int) -> None:
        self._searcher: Searcher
        if contestant.sampler == "random":
            self._searcher = Plan(Random(trials=trials, seed=seed).plan(function.space, lambda _: True))
        else:
            search = Bayesian.model_validate({"sampler": contestant.sampler, "trials": trials, "seed": seed})
            self._searcher = Study(search, function.space, ["min"], allows=lambda _: True, prunes=False)

    def ask(self) -> Values:
        assignment = self._searcher.ask()
        assert assignment is not None, "every space here has more configurations than trials"
        return assignment

    def tell(self, number: int, configuration: Values, value: float) -> None:
        self._searcher.tell(number, _outcome(configuration, value))

    def learn(self, configuration: Values, value: float) -> None:
        self._searcher.learn(_outcome(configuration, value), is_own=False)


def _outcome(configuration: Values, value: float) -> TrialOutcome:
    if math.isnan(value):
        return TrialOutcome(dict(configuration), "failed")
    return TrialOutcome(dict(configuration), "completed", [value])


class PlainOptuna(Asker):
    """A study of plain Optuna, as its documentation shows it."""

    def __init__(self, contestant: Contestant, function: Function, trials: int, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # tuner's study derives the same seed: where both do the same, they draw the same configurations.
        seed = int(np.random.SeedSequence([seed, 0]).generate_state(1)[0])
        samplers = {"tpe": optuna.samplers.TPESampler, "gp": optuna.samplers.GPSampler}
        self._study = optuna.create_study(sampler=samplers[contestant.sampler](seed=seed))
        self._failed = optuna.trial.TrialState.FAIL
        self._function = function
        self._trials: list[optuna.Trial] = []

    def ask(self) -> Values:
        self._trials.append(self._study.ask())
        return self._function.suggest(self._trials[-1])

    def tell(self, number: int, configuration: Values, value: float) -> None:
        if math.isnan(value):
            self._study.tell(self._trials[number], state=self._failed)
        else:
            self._study.tell(self._trials[number], value)

    def learn(self, configuration: Values, value: float) -> None:
        import optuna

        asked = optuna.trial.FixedTrial(dict(configuration))
        self._function.suggest(asked)  # type: ignore[arg-type]
        learnt = optuna.create_trial(params=asked.params, distributions=asked.distributions, value=value)
        self._study.add_trial(learnt)
