"""The searcher that asks an Optuna study.

It adds to Optuna's samplers: conditions, no duplicates, no configurations that constraints forbid, and fewer
configurations in regions in which trials fail.
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
from tuner.search.neighbourhood import Regions, neighbours, towards
from tuner.search.planned import Allows
from tuner.search.searcher import Searcher, State, TrialOutcome
from tuner.search.space import Distribution, Space

_DIRECTIONS: dict[str, Literal["maximize", "minimize"]] = {"max": "maximize", "min": "minimize"}
# Limits after which `ask` chooses a configuration itself instead of asking the sampler:
_MAX_FORBIDDEN = 10  # suggestions that are not allowed
_MAX_RISKY = 3  # suggestions in a region in which trials fail
_MAX_KNOWN = 3  # suggestions that were tried already
_MAX_DRAWS = 1000  # random draws that are forbidden or known; after them the space counts as exhausted


class Study(Searcher):
    """A searcher that asks an Optuna study."""

    def __init__(
        self,
        search: Adaptive,
        space: Space,
        modes: Sequence[str],
        *,
        allows: Allows,
        prunes: bool,
        previous_trials: int = 0,
    ) -> None:
        """Create the study.

        Args:
            search: The sampler and the number of trials.
            space: The search space.
            modes: max or min for each objective.
            allows: Whether a configuration may be tried.
            prunes: Whether the scheduler prunes trials.
            previous_trials: Number of trials that the job asked for before it was resumed. So many of the initial and
                startup configurations are skipped, and the seed changes.
        """
        import optuna

        optuna.logging.set_verbosity(logging.ERROR)
        self.total = search.trials
        self._search = search
        self._space = space
        self._allows = allows
        seed = int(np.random.SeedSequence([search.seed, previous_trials]).generate_state(1)[0])
        self._rng = np.random.default_rng([search.seed, previous_trials])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # grouped TPE warns that it is experimental
            sampler = search.build(space, len(modes), prunes, seed)
        self._study = optuna.create_study(directions=[_DIRECTIONS[mode] for mode in modes], sampler=sampler)
        self._asked: list[Any] = []
        """Optuna's trial for each of our trials, by number."""
        self._known: dict[str, int] = {}
        """Number of trials of each configuration, by its repr."""
        self._regions = Regions(space)
        self._initial = list(search.initial[previous_trials:])
        startup = search.startup_plan(space, len(modes), prunes, allows)
        self._startup = startup[max(0, previous_trials - len(search.initial)) :]

    def ask(self) -> Assignment | None:
        if len(self._asked) >= self.total:
            return None
        first = self._initial.pop(0) if self._initial else {}
        if not first and (planned := self._planned()) is not None:
            return self._add(self._suggested(planned)[0], planned)
        forbidden: list[Assignment] = []
        risky: list[Assignment] = []
        known: list[Assignment] = []
        while len(forbidden) < _MAX_FORBIDDEN and len(risky) < _MAX_RISKY and len(known) < _MAX_KNOWN:
            trial, assignment = self._suggested(first)
            if not self._allows(assignment):
                self._forbid(trial)
                forbidden.append(assignment)
            elif not self._is_known(assignment) and (first or not self._is_risky(assignment)):
                return self._add(trial, assignment)
            else:
                self._study.tell(trial, state=_states()["failed"])  # samplers ignore failed trials
                (known if self._is_known(assignment) else risky).append(assignment)
        rejected = risky or forbidden or known
        for candidate in self._replacements(rejected[0], is_known=rejected is known):
            if self._is_acceptable(candidate):
                self.register(candidate)
                return candidate
        return self._random()

    def _planned(self) -> Assignment | None:
        """The next acceptable configuration of the startup plan; None if there is none left."""
        while self._startup:
            assignment = self._startup.pop(0)
            if self._is_acceptable(assignment):
                return assignment
        return None

    def register(self, assignment: Assignment) -> None:
        self._add(self._suggested(assignment)[0], assignment)

    def report(self, number: int, step: int, value: float) -> None:
        if len(self._study.directions) == 1:  # Optuna has no intermediate values for several objectives
            self._asked[number].report(value, step)

    def tell(self, number: int, outcome: TrialOutcome) -> None:
        trial = self._asked[number]
        for name, violation in outcome.violations.items():
            trial.set_constraint(name, violation)
        values = outcome.values if outcome.state == "completed" else None
        if outcome.state == "completed" and not _finite(values):
            outcome = TrialOutcome(outcome.assignment, "failed")
        self._study.tell(
            trial, list(values) if values and outcome.state == "completed" else None, _states()[outcome.state]
        )
        self._regions.add(outcome.assignment, failed=outcome.state == "failed")

    def learn(self, outcome: TrialOutcome, *, is_own: bool) -> None:
        import optuna

        state = outcome.state if outcome.state != "completed" or _finite(outcome.values) else "failed"
        attributes = dict(outcome.attributes)
        for name, violation in outcome.violations.items():
            attributes.setdefault(f"constraints:{name}", violation)
        values = list(outcome.values or ()) if state == "completed" else None
        if state == "pruned" and outcome.steps and len(self._study.directions) == 1:
            values = [outcome.steps[max(outcome.steps)]]  # as `Study.tell` does for a pruned trial
        trial = optuna.trial.create_trial(
            params={name: self._number(name, value) for name, value in outcome.assignment.items()},
            distributions={name: _distribution(self._space[name].axis()) for name in outcome.assignment},
            values=values if _finite(values) else None,
            state=_states()[state],
            intermediate_values=dict(outcome.steps) if len(self._study.directions) == 1 else {},
            system_attrs=attributes,
        )
        self._study.add_trial(trial)
        self._regions.add(outcome.assignment, failed=outcome.state == "failed")
        if is_own:
            self._add(None, outcome.assignment)
        else:
            del self._startup[-1:]  # each trial of a warm start replaces one startup trial

    def attributes(self, number: int) -> dict[str, Any]:
        trial = self._asked[number]
        return {} if trial is None else dict(self._study.get_trials(deepcopy=False)[trial.number].system_attrs)

    def _suggested(self, given: Assignment) -> tuple[Any, Assignment]:
        """Ask Optuna for a trial: with the given values, and with suggested ones for the other keys."""
        if given:
            self._study.enqueue_trial({name: self._space[name].encode(value) for name, value in given.items()})

        def value(name: str, distribution: Distribution) -> Any:
            number = _suggest(trial, name, distribution.axis())
            return given[name] if name in given else distribution.decode(number)

        with warnings.catch_warnings(), _one_thread():
            warnings.simplefilter("ignore")  # such as that the fit of a sampler's model did not converge
            trial = self._study.ask()
            return trial, draw(self._space, value)

    def _forbid(self, trial: Any) -> None:
        """Tell the study that a configuration is not allowed. TPE then counts it as a bad one without training it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CMA-ES warns that it ignores constraints
            trial.set_constraint("allowed", 1.0)
            self._study.tell(trial, state=_states()["pruned"])

    def _replacements(self, assignment: Assignment, *, is_known: bool) -> Iterator[Assignment]:
        """Configurations to try instead of a suggestion that was rejected.

        If the optimum is near the border of a forbidden or failing region, a sampler keeps suggesting configurations
        inside of that region: the replacements lie between them and a configuration that did not fail. In a finite
        space a sampler repeats known configurations near the optimum: the replacements are their neighbours.
        """
        if is_known:
            yield from neighbours(self._space, assignment, self._rng)
        elif (anchor := self._regions.nearest_successful(assignment)) is not None:
            yield from towards(self._space, anchor, assignment, self._rng)

    def _random(self) -> Assignment | None:
        """Draw an acceptable configuration at random, or a risky one if there is no other; None if there is none."""
        risky: Assignment | None = None
        for _ in range(_MAX_DRAWS):
            assignment = draw(self._space, lambda name, distribution: distribution.sample(self._rng))
            if self._allows(assignment) and not self._is_known(assignment):
                if not self._is_risky(assignment):
                    self.register(assignment)
                    return assignment
                risky = risky or assignment
        if risky is None:
            self.total = len(self._asked)
        else:
            self.register(risky)
        return risky

    def _add(self, trial: Any, assignment: Assignment) -> Assignment:
        self._asked.append(trial)
        self._known[repr(assignment)] = self._known.get(repr(assignment), 0) + 1
        return assignment

    def _is_acceptable(self, assignment: Assignment) -> bool:
        return self._allows(assignment) and not self._is_known(assignment) and not self._is_risky(assignment)

    def _is_known(self, assignment: Assignment) -> bool:
        return not self._search.duplicates and repr(assignment) in self._known

    def _is_risky(self, assignment: Assignment) -> bool:
        return self._regions.risk(assignment) > 0.5

    def _number(self, name: str, value: Any) -> Any:
        axis = self._space[name].axis()
        number = self._space[name].encode(value)
        return number if axis.kind == "real" else round(number)


@lru_cache(maxsize=1)  # finding the libraries takes longer than a suggestion
def _blas() -> Any:
    """The thread pools of the BLAS libraries that samplers use."""
    import scipy.linalg  # noqa: F401 - loads SciPy's own BLAS, which the controller must find
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread, because the matrices of a Gaussian process are small.

    While trials use all cores, a suggestion with several threads takes ten times as long.
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
    """Optuna's distribution of an axis, as `_suggest` uses it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.kind == "real":
        return FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)
    if axis.kind == "integer":
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
    return CategoricalDistribution(range(int(axis.high) + 1))
