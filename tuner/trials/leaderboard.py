"""The ranking of a job's trials: the leaderboard, the Pareto front, the winner."""

from collections.abc import Iterable, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

from tuner.formatting import counted
from tuner.objectives import Objective, pareto_front
from tuner.trials.status import SCORED
from tuner.trials.trial import Trial

if TYPE_CHECKING:
    import pandas as pd


def front(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """Return the trials on the Pareto front, best in the first objective first; none if there is one objective."""
    points = [(trial, values) for trial in _candidates(trials) if (values := trial.values(objectives)) is not None]
    if len(objectives) == 1 or not points:
        return []
    on_front = pareto_front([values for _, values in points], objectives)
    return _sorted((trial for (trial, _), is_on in zip(points, on_front, strict=True) if is_on), objectives)


def ranked(trials: Sequence[Trial], objectives: Sequence[Objective], repeat: int = 1) -> list[Trial]:
    """Return the trials best first.

    The Pareto front comes first, then the other trials that satisfy the constraints, then those that violate one, then
    those without a result. Each group is sorted by the first objective, equal trials by number. With `repeat` above 1
    configurations with that many results come first in their group, sorted by their mean.
    """
    best = front(trials, objectives)
    scored = [trial for trial in trials if trial.best is not None and trial not in best]
    feasible = [trial for trial in scored if trial.is_feasible]
    others = [trial for trial in scored if not trial.is_feasible]
    rest = [trial for trial in trials if trial.best is None]
    return best + _sorted(feasible, objectives, repeat) + _sorted(others, objectives, repeat) + rest


def winner(trials: Sequence[Trial], objectives: Sequence[Objective], repeat: int = 1) -> Trial | None:
    """Return the best trial in the first objective that has a result and satisfies the constraints; None if there is
    none.

    A trial that ended early counts with its best report, which has a checkpoint. With `repeat` above 1 it is the best
    trial of the configuration with the best mean.
    """
    best = _sorted(_candidates(trials), objectives, repeat)
    return best[0] if best else None


def _candidates(trials: Iterable[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.status in SCORED and trial.best is not None and trial.is_feasible]


def _sorted(trials: Iterable[Trial], objectives: Sequence[Objective], repeat: int = 1) -> list[Trial]:
    trials, key = list(trials), objectives[0].key
    if repeat == 1:
        return sorted(trials, key=lambda trial: key(trial.best or 0.0))
    scores: dict[str, list[float]] = {}
    for trial in trials:
        scores.setdefault(repr(trial.assignment), []).append(trial.best or 0.0)

    def place(trial: Trial) -> tuple[bool, float, str, float]:
        name = repr(trial.assignment)  # keeps the trials of a configuration together if another has the same mean
        return len(scores[name]) < repeat, key(mean(scores[name])), name, key(trial.best or 0.0)

    return sorted(trials, key=place)


def failures(trials: Sequence[Trial]) -> str:
    """Return how many trials failed, and the first of them with its reason, as text; empty if none failed."""
    failed = [trial for trial in trials if trial.status == "failed"]
    if not failed:
        return ""
    first = f"trial {failed[0].number}" if len(failed) == 1 else f"the first, trial {failed[0].number}"
    return f"{len(failed)} of {counted(len(trials), 'trial')}; {first}: {failed[0].reason}"


def leaderboard(trials: Sequence[Trial], objectives: Sequence[Objective], repeat: int = 1) -> "pd.DataFrame":
    """Return the table of all trials, best first.

    Returns:
        Columns ``trial``, ``status``, each objective, ``pareto`` if there are several, ``best_epoch``, each searched
        key, ``missed: <constraint>``: the amount of the violation, ``seconds``, ``reason``.
    """
    import pandas as pd

    on_front = {trial.number for trial in front(trials, objectives)}
    rows = []
    for trial in ranked(trials, objectives, repeat):
        row: dict[str, Any] = {"trial": trial.number, "status": trial.status}
        row |= {objective.metric: objective.of(trial.best_report) for objective in objectives}
        if len(objectives) > 1:
            row["pareto"] = trial.number in on_front
        row |= {"best_epoch": trial.best_epoch, **(trial.best_assignment or trial.assignment)}
        row |= {f"missed: {name}": violation for name, violation in trial.violations.items()}
        rows.append(row | {"seconds": round(trial.seconds, 1), "reason": trial.reason})
    return pd.DataFrame(rows)
