"""A job's trials as an Optuna study that holds the values as the user wrote them, for Optuna's own plots.

`tuner.search.optuna_searcher` holds what a sampler sees: places in lists, quantiles. This one has learning rates on a
log axis and choices by their labels. Everything that a user wrote is escaped: plotly renders some HTML in its texts.
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

_LONGEST = 40  # characters of a label


class _Label(str):
    """A choice by its label. Optuna shows the `repr` of choices: quotes around words that have none in the YAML."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def escaped(text: str) -> str:
    """Text as plotly shows it letter by letter."""
    return html.escape(text, quote=False)


def configuration(trial: Trial) -> Assignment:
    """What a trial's best report was measured with; of one without a report, what it began with."""
    return trial.best_assignment or trial.assignment


def scores(trial: Trial, objectives: Sequence[Objective]) -> list[float] | None:
    """Each objective at a trial's best report; None where one is missing or no finite number."""
    values = trial.values(objectives)
    return values if values is not None and all(map(math.isfinite, values)) else None


class Trials:
    """The trials of a job in the order of their numbers, and the studies that Optuna draws.

    Args:
        space: What was searched.
        trials: The trials.
    """

    def __init__(self, space: Space, trials: Sequence[Trial]) -> None:
        self.all = sorted(trials, key=lambda trial: trial.number)
        """The trials by number."""
        names = {key: escaped(name) for key, name in short_names(space).items()}
        self.keys = list(names.values())
        """The searched keys, each by as few of its last parts as tell it from the others, as plotly shows them."""
        self.whole = {name: key for key, name in names.items()}
        """The key of the space, by that name."""
        self._scales: dict[str, Scale] = {}
        self.params: dict[int, dict[str, Any]] = {trial.number: {} for trial in self.all}
        """For each trial's number what it takes for each key that counts: numbers, and labels of choices."""
        for key, what in space.items():
            taken = [value for trial in self.all for value in _taken(trial, key)]
            self._scales[names[key]], shown = _scale(what, taken)
            for trial in self.all:
                for value in _taken(trial, key):
                    self.params[trial.number][names[key]] = shown.get(repr(value), value)

    def completed(self, objectives: Sequence[Objective]) -> list[Trial]:
        """Those that ran to their end and have finite values, best in the first objective first."""
        done = [t for t in self.all if t.status == "completed" and scores(t, objectives) is not None]
        return sorted(done, key=lambda trial: objectives[0].key(objectives[0].of(trial.best_report) or 0.0))

    def varying(self, trials: Sequence[Trial]) -> list[str]:
        """The keys, in the order of the space, that take more than one value among `trials`."""
        return [key for key in self.keys if len(set(self._column(key, trials))) > 1]

    def is_number(self, key: str) -> bool:
        """Whether a key has a scale on which there is something between two of its values."""
        from optuna.distributions import CategoricalDistribution

        return not isinstance(self._scales[key], CategoricalDistribution)

    def configurations(self, trials: Sequence[Trial]) -> int:
        """How many different configurations `trials` have: the same with another seed tells nothing of the keys."""
        return len({repr(sorted(self.params[trial.number].items())) for trial in trials})

    def go_together(self, one: str, other: str, trials: Sequence[Trial], least: int = 2) -> bool:
        """Whether both keys take `least` values or more among those of `trials` in which both count."""
        both = [trial for trial in trials if {one, other} <= self.params[trial.number].keys()]
        return all(len(set(self._column(key, both))) >= least for key in (one, other))

    def study(self, objectives: Sequence[Objective], trials: Sequence[Trial], *, curves: bool = False) -> "Study":
        """An Optuna study of `trials`, its own numbers their places in it.

        Args:
            objectives: What each trial is judged by.
            trials: Those that are in it.
            curves: Whether it has the first objective at each epoch, too. Optuna copies its trials often.
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
    """The first objective at each epoch at which it was a finite number."""
    return {epoch: value for epoch, value in trial.series.items() if math.isfinite(value)}


def _taken(trial: Trial, key: str) -> list[Value]:
    """The value of a key in a list; an empty one where it does not count."""
    values = configuration(trial)
    return [values[key]] if key in values else []


def _state(trial: Trial, objectives: Sequence[Objective]) -> "TrialState":
    from optuna.trial import TrialState

    if trial.status == "completed":
        return TrialState.FAIL if scores(trial, objectives) is None else TrialState.COMPLETE
    # An interrupted trial did not fail: it was ended before its time, as a pruned one is.
    early = {"pruned": TrialState.PRUNED, "interrupted": TrialState.PRUNED}
    return early.get(trial.status) or {"pending": TrialState.WAITING, "running": TrialState.RUNNING}.get(
        trial.status, TrialState.FAIL
    )


def _scale(what: BaseDistribution, taken: Sequence[Value]) -> "tuple[Scale, dict[str, Any]]":
    """Optuna's distribution of a key as the user sees it, and its value there for each of ours, by our `repr`."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    ends = what.corners()
    values = [*ends, *taken]
    if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        labels = _labels(values)
        return CategoricalDistribution(list(labels.values())), labels
    low, high = min(values), max(values)
    # Of listed values nobody said how they are spaced: 0.1, 0.01, 0.001 stand apart only on a log axis.
    listed = what.values()
    is_list = listed is not None and list(islice(listed, len(ends) + 1)) == ends
    is_log = low > 0 and (high > 10 * low if is_list else what.axis().log)
    if all(type(value) is int for value in values):
        return IntDistribution(low, high, log=is_log), {}
    return FloatDistribution(float(low), float(high), log=is_log), {repr(value): float(value) for value in values}


def _labels(values: Sequence[Value]) -> dict[str, _Label]:
    """A label for each value, by its `repr`, no two of them the same."""
    labels: dict[str, _Label] = {}
    for value in values:
        if repr(value) in labels:
            continue
        text = masked(brief(value))
        text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
        label, count = escaped(text), 1
        while label in labels.values():
            count += 1
            label = f"{escaped(text)} ({count})"
        labels[repr(value)] = _Label(label)
    return labels
