"""The Optuna study behind adaptive search.

Ours adds to Optuna's samplers what they leave to their caller: conditions, no configuration twice, none that a
constraint forbids, and a way around regions that failed.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from tuner.config_keys import Assignment
from tuner.search.adaptive import Adaptive
from tuner.search.conditions import draw
from tuner.search.encoding import Axis
from tuner.search.neighbourhood import Regions, beside, towards
from tuner.search.planned import Allows
from tuner.search.searcher import Searcher, State, TrialOutcome
from tuner.search.space import Distribution, Space

_DIRECTIONS: dict[str, Literal["maximize", "minimize"]] = {"max": "maximize", "min": "minimize"}
_ATTEMPTS = 10  # suggestions that may be forbidden, before another way is taken
_RISKS = 3  # suggestions that may be risky, before that
_REPEATS = 3  # suggestions that may be known, before that
_DRAWS = 1000  # at random that may all be, before the space counts as exhausted


class Study(Searcher):
    """An Optuna study, and what is around it."""

    def __init__(
        self, search: Adaptive, space: Space, modes: Sequence[str], *, allows: Allows, prunes: bool, past: int = 0
    ) -> None:
        """Open a study.

        Args:
            search: Which sampler, and how many trials.
            space: What is searched.
            modes: max or min, for each objective.
            allows: Whether a configuration may be tried.
            prunes: Whether a scheduler ends trials early.
            past: Trials that an earlier run of the job asked for: the random numbers go on behind them.
        """
        import optuna

        optuna.logging.set_verbosity(logging.ERROR)
        self.total = search.trials
        self._search = search
        self._space = space
        self._allows = allows
        seed = int(np.random.SeedSequence([search.seed, past]).generate_state(1)[0])
        self._rng = np.random.default_rng([search.seed, past])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # grouped TPE calls itself experimental
            sampler = search.build(space, len(modes), prunes, seed)
        self._study = optuna.create_study(directions=[_DIRECTIONS[mode] for mode in modes], sampler=sampler)
        self._asked: list[Any] = []
        """Optuna's trial by the number of ours."""
        self._known: dict[str, int] = {}
        """How often a configuration was tried."""
        self._regions = Regions(space)
        self._initial = list(search.initial[past:])
        startup = search.startup_plan(space, len(modes), prunes, allows)
        self._startup = startup[max(0, past - len(search.initial)) :]

    def ask(self) -> Assignment | None:
        if len(self._asked) >= self.total:
            return None
        first = self._initial.pop(0) if self._initial else {}
        if not first and (planned := self._planned()) is not None:
            return self._taken(self._suggested(planned)[0], planned)
        forbidden: list[Assignment] = []
        risky: list[Assignment] = []
        known: list[Assignment] = []
        while len(forbidden) < _ATTEMPTS and len(risky) < _RISKS and len(known) < _REPEATS:
            trial, assignment = self._suggested(first)
            if not self._allows(assignment):
                self._forbid(trial)
                forbidden.append(assignment)
            elif not self._is_known(assignment) and (first or not self._is_risky(assignment)):
                return self._taken(trial, assignment)
            else:
                self._study.tell(trial, state=_states()["failed"])  # which samplers pass over
                (known if self._is_known(assignment) else risky).append(assignment)
        refused = risky or forbidden or known
        for near in self._near(refused[0], is_known=refused is known):
            if self._is_sound(near):
                self.ask_again(near)
                return near
        return self._drawn()

    def _planned(self) -> Assignment | None:
        """What is to be tried before the sampler knows enough, while there is some of it."""
        while self._startup:
            assignment = self._startup.pop(0)
            if self._is_sound(assignment):
                return assignment
        return None

    def ask_again(self, assignment: Assignment) -> None:
        self._taken(self._suggested(assignment)[0], assignment)

    def report(self, number: int, step: int, value: float) -> None:
        if len(self._study.directions) == 1:  # Optuna has no intermediate values of several objectives
            self._asked[number].report(value, step)

    def tell(self, number: int, told: TrialOutcome) -> None:
        trial = self._asked[number]
        for name, violation in told.violations.items():
            trial.set_constraint(name, violation)
        values = told.values if told.state == "completed" else None
        if told.state == "completed" and not _finite(values):
            told = TrialOutcome(told.assignment, "failed")
        self._study.tell(trial, list(values) if values and told.state == "completed" else None, _states()[told.state])
        self._regions.add(told.assignment, failed=told.state == "failed")

    def learn(self, told: TrialOutcome, *, counts: bool) -> None:
        import optuna

        state = told.state if told.state != "completed" or _finite(told.values) else "failed"
        attributes = dict(told.attributes)
        for name, violation in told.violations.items():
            attributes.setdefault(f"constraints:{name}", violation)
        values = list(told.values or ()) if state == "completed" else None
        if state == "pruned" and told.steps and len(self._study.directions) == 1:
            values = [told.steps[max(told.steps)]]  # as Optuna has it of those that it is told of
        trial = optuna.trial.create_trial(
            params={name: self._number(name, value) for name, value in told.assignment.items()},
            distributions={name: _distribution(self._space[name].axis()) for name in told.assignment},
            values=values if _finite(values) else None,
            state=_states()[state],
            intermediate_values=dict(told.steps) if len(self._study.directions) == 1 else {},
            system_attrs=attributes,
        )
        self._study.add_trial(trial)
        self._regions.add(told.assignment, failed=told.state == "failed")
        if counts:
            self._taken(None, told.assignment)
        else:
            del self._startup[-1:]  # the sampler knows as much without one of them

    def attributes(self, number: int) -> dict[str, Any]:
        trial = self._asked[number]
        return {} if trial is None else dict(self._study.get_trials(deepcopy=False)[trial.number].system_attrs)

    def _suggested(self, given: Assignment) -> tuple[Any, Assignment]:
        """Optuna's next trial: with the values that are given, and its own for the other keys."""
        if given:
            self._study.enqueue_trial({name: self._space[name].encode(value) for name, value in given.items()})

        def value(name: str, distribution: Distribution) -> Any:
            number = _suggest(trial, name, distribution.axis())
            return given[name] if name in given else distribution.decode(number)

        with warnings.catch_warnings(), _one_thread():
            warnings.simplefilter("ignore")  # how a sampler fits its model is its own affair
            trial = self._study.ask()
            return trial, draw(self._space, value)

    def _forbid(self, trial: Any) -> None:
        """Tell of a configuration that is not tried: TPE counts it among the bad, at no cost."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CMA-ES says that it does not
            trial.set_constraint("allowed", 1.0)
            self._study.tell(trial, state=_states()["pruned"])

    def _near(self, assignment: Assignment, *, is_known: bool) -> Iterator[Assignment]:
        """Where to look instead of a suggestion.

        Where the best lies at the edge of what is forbidden or fails, a sampler keeps to the wrong side of it: the
        right one is on the way to a configuration that trained. In a finite space it comes back to what it knows, or
        what is running: the best may be next to it.
        """
        if is_known:
            yield from beside(self._space, assignment, self._rng)
        elif (anchor := self._regions.nearest_sound(assignment)) is not None:
            yield from towards(self._space, anchor, assignment, self._rng)

    def _drawn(self) -> Assignment | None:
        """At random, where the sampler keeps to what is known, forbidden or fails."""
        risky: Assignment | None = None
        for _ in range(_DRAWS):
            assignment = draw(self._space, lambda name, distribution: distribution.sample(self._rng))
            if self._allows(assignment) and not self._is_known(assignment):
                if not self._is_risky(assignment):
                    self.ask_again(assignment)
                    return assignment
                risky = risky or assignment
        if risky is None:
            self.total = len(self._asked)
        else:
            self.ask_again(risky)
        return risky

    def _taken(self, trial: Any, assignment: Assignment) -> Assignment:
        self._asked.append(trial)
        self._known[repr(assignment)] = self._known.get(repr(assignment), 0) + 1
        return assignment

    def _is_sound(self, assignment: Assignment) -> bool:
        return self._allows(assignment) and not self._is_known(assignment) and not self._is_risky(assignment)

    def _is_known(self, assignment: Assignment) -> bool:
        return not self._search.duplicates and repr(assignment) in self._known

    def _is_risky(self, assignment: Assignment) -> bool:
        return self._regions.risk(assignment) > 0.5

    def _number(self, name: str, value: Any) -> Any:
        axis = self._space[name].axis()
        number = self._space[name].encode(value)
        return number if axis.kind == "real" else round(number)


@lru_cache(maxsize=1)  # to look for the libraries takes longer than a suggestion
def _blas() -> Any:
    """The thread pools of the linear algebra that samplers use."""
    import scipy.linalg  # noqa: F401 - it brings a library of its own, which is found only once it is there
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: on a Gaussian process's small matrices more of them wait for each other, and for trials.

    Beside trials that keep all cores busy a suggestion takes ten times as long without it.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _blas().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)


def _states() -> dict[State, Any]:
    from optuna.trial import TrialState

    return {"completed": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


def _finite(values: Sequence[float] | None) -> bool:
    return values is not None and bool(np.all(np.isfinite(values)))


def _suggest(trial: Any, name: str, axis: Axis) -> float:
    if axis.kind == "real":
        number = trial.suggest_float(name, axis.low, axis.high, log=axis.log, step=axis.step)
    elif axis.kind == "integer":
        number = trial.suggest_int(name, int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
    else:
        number = trial.suggest_categorical(name, range(int(axis.high) + 1))
    return float(number)


def _distribution(axis: Axis) -> Any:
    """What `_suggest` asks for, for trials that are told without having been asked for."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.kind == "real":
        return FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)
    if axis.kind == "integer":
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
    return CategoricalDistribution(range(int(axis.high) + 1))
