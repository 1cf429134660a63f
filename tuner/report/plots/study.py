"""A job's trials as an Optuna study with the values that the user wrote, for Optuna's plots.

The study in `tuner.search.optuna_searcher` has the values that a sampler gets: indices in lists, quantiles. This one
has learning rates on a log axis and choices by their labels. Texts of the user are escaped, since plotly renders some
HTML.
"""

import html
import math
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from tuner.config_keys import Assignment, Value
from tuner.objectives import Objective
from tuner.search.distributions import BaseDistribution
from tuner.search.space import Space
from tuner.storage.uris import masked
from tuner.trials.labels import brief, short_names
from tuner.trials.trial import Trial

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution as Scale
    from optuna.trial import TrialState

_MAX_LABEL = 40  # characters


class _Label(str):
    """The label of a choice. Optuna shows the `repr` of choices, which would add quotes to a str."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def escaped(text: str) -> str:
    """Escape a text for plotly, which renders some HTML."""
    return html.escape(text, quote=False)


def configuration(trial: Trial) -> Assignment:
    """Return the configuration of a trial's best report; without a report, the one that the trial began with."""
    return trial.best_assignment or trial.assignment


def scores(trial: Trial, objectives: Sequence[Objective]) -> list[float] | None:
    """Return each objective of a trial's best report; None where one is missing or not finite."""
    values = trial.values(objectives)
    return values if values is not None and all(map(math.isfinite, values)) else None


class Trials:
    """The trials of a job in the order of their numbers, and the Optuna studies of them.

    Args:
        space: The space that was searched.
        trials: The trials.
    """

    def __init__(self, space: Space, trials: Sequence[Trial]) -> None:
        self.all = sorted(trials, key=lambda trial: trial.number)
        """The trials by number."""
        names = {key: escaped(name) for key, name in short_names(space).items()}
        self.keys = list(names.values())
        """The short names of the searched keys, unique and escaped for plotly."""
        self.full_names = {name: key for key, name in names.items()}
        """The dotted key of the space, by its short name."""
        self._scales: dict[str, Scale] = {}
        self.params: dict[int, dict[str, Any]] = {trial.number: {} for trial in self.all}
        """By a trial's number and a key's short name, the value: a number, or the label of a choice."""
        for key, distribution in space.items():
            values = [value for trial in self.all for value in _values_of(trial, key)]
            self._scales[names[key]], labels = _scale(distribution, values)
            for trial in self.all:
                for value in _values_of(trial, key):
                    self.params[trial.number][names[key]] = labels.get(repr(value), value)

    def completed(self, objectives: Sequence[Objective]) -> list[Trial]:
        """Return the trials that completed with finite values, best in the first objective first."""
        done = [t for t in self.all if t.status == "completed" and scores(t, objectives) is not None]
        return sorted(done, key=lambda trial: objectives[0].key(objectives[0].of(trial.best_report) or 0.0))

    def varying(self, trials: Sequence[Trial]) -> list[str]:
        """Return the keys that have more than one value in `trials`, in the order of the space."""
        return [key for key in self.keys if len(set(self._column(key, trials))) > 1]

    def is_number(self, key: str) -> bool:
        """Return whether a key is numeric."""
        from optuna.distributions import CategoricalDistribution

        return not isinstance(self._scales[key], CategoricalDistribution)

    def configurations(self, trials: Sequence[Trial]) -> int:
        """Return how many different configurations `trials` have, whatever their seeds."""
        return len({repr(sorted(self.params[trial.number].items())) for trial in trials})

    def vary_together(self, one: str, other: str, trials: Sequence[Trial], minimum: int = 2) -> bool:
        """Return whether both keys have at least `minimum` values in those of `trials` that have both keys."""
        both = [trial for trial in trials if {one, other} <= self.params[trial.number].keys()]
        return all(len(set(self._column(key, both))) >= minimum for key in (one, other))

    def study(self, objectives: Sequence[Objective], trials: Sequence[Trial], *, curves: bool = False) -> "Study":
        """Return an Optuna study of `trials`; Optuna's trial numbers are the indices in `trials`.

        Args:
            objectives: The study's objectives.
            trials: The trials to add.
            curves: Whether to add the first objective at each epoch: expensive, since Optuna copies trials often.
        """
        import optuna

        directions: dict[str, Any] = {"max": "maximize", "min": "minimize"}
        study = optuna.create_study(directions=[directions[objective.mode] for objective in objectives])
        for trial in trials:
            params = self.params[trial.number]
            state = _state(trial, objectives)
            frozen = optuna.trial.create_trial(
                state=state,
                values=scores(trial, objectives) if state.name == "COMPLETE" else None,
                params=params,
                distributions={key: self._scales[key] for key in params},
                intermediate_values=finite_series(trial) if curves else {},
                constraints=trial.violations or None,
                user_attrs={"trial": trial.number},
            )
            study.add_trial(frozen)
        return study

    def _column(self, key: str, trials: Sequence[Trial]) -> list[Any]:
        params = (self.params[trial.number] for trial in trials)
        return [each[key] for each in params if key in each]


def finite_series(trial: Trial) -> dict[int, float]:
    """Return the finite values of the first objective by epoch."""
    return {epoch: value for epoch, value in trial.series.items() if math.isfinite(value)}


def _values_of(trial: Trial, key: str) -> list[Value]:
    """Return the value of a key in a list; an empty list where the key's condition does not hold."""
    values = configuration(trial)
    return [values[key]] if key in values else []


def _state(trial: Trial, objectives: Sequence[Objective]) -> "TrialState":
    from optuna.trial import TrialState

    if trial.status == "completed":
        return TrialState.FAIL if scores(trial, objectives) is None else TrialState.COMPLETE
    states = {
        "pruned": TrialState.PRUNED,
        "interrupted": TrialState.PRUNED,  # it did not fail: like a pruned trial, it was stopped early
        "pending": TrialState.WAITING,
        "running": TrialState.RUNNING,
    }
    return states.get(trial.status, TrialState.FAIL)


def _scale(distribution: BaseDistribution, trial_values: Sequence[Value]) -> "tuple[Scale, dict[str, Any]]":
    """Return Optuna's distribution for the plots of a key, and its value for the `repr` of each of the key's values.

    Args:
        distribution: The key's distribution.
        trial_values: The values of the key in all trials.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    corners = distribution.corners()
    values = [*corners, *trial_values]
    if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        labels = _labels(values)
        return CategoricalDistribution(list(labels.values())), labels
    low, high = min(values), max(values)
    # A list has no scale of its own: 0.1, 0.01, 0.001 are distinguishable only on a log axis.
    listed = distribution.values()
    is_list = listed is not None and list(islice(listed, len(corners) + 1)) == corners
    is_log = low > 0 and (high > 10 * low if is_list else distribution.axis().log)
    if all(type(value) is int for value in values):
        return IntDistribution(low, high, log=is_log), {}
    return FloatDistribution(float(low), float(high), log=is_log), {repr(value): float(value) for value in values}


def _labels(values: Sequence[Value]) -> dict[str, _Label]:
    """Return a unique label for each value, by the value's `repr`."""
    labels: dict[str, _Label] = {}
    for value in values:
        if repr(value) in labels:
            continue
        text = masked(brief(value))
        text = text if len(text) <= _MAX_LABEL else f"{text[: _MAX_LABEL - 1]}…"
        label, count = escaped(text), 1
        while label in labels.values():
            count += 1
            label = f"{escaped(text)} ({count})"
        labels[repr(value)] = _Label(label)
    return labels
