"""What earlier jobs know: their trials, read from MLflow, for a sampler to learn from."""

from collections.abc import Mapping
from typing import Any

from tuner import store
from tuner.adaptive import Adaptive
from tuner.conditions import draw
from tuner.distribution import Value
from tuner.errors import Problem, UserError
from tuner.record_names import originals
from tuner.searcher import State, Told
from tuner.space import Distribution
from tuner.spec import ExperimentSpec

_STATES: dict[str, State] = {"completed": "completed", "pruned": "pruned", "failed": "failed", "diverged": "failed"}


class _Outside(Exception):
    """A trial has a value that the space does not have."""


def learnt(spec: ExperimentSpec, uri: str, but: str = "") -> list[Told]:
    """The trials that ``search.warm_start`` names, as far as they lie in this space and its constraints.

    Args:
        spec: The experiment.
        uri: MLflow's tracking URI.
        but: The run of a job that is passed over: one that goes on knows its own trials.

    Raises:
        UserError: There is no such experiment or run, it cannot be read, or nothing of it can be learnt from.
    """
    source = spec.search.warm_start if isinstance(spec.search, Adaptive) else None
    if source is None:
        return []
    with store.reading(uri) as client:
        runs = store.trial_runs(client, source)
    key = "search.warm_start"
    if runs is None:
        hint = "give the name of an MLflow experiment, or the id of a job's run"
        raise UserError(Problem(f"there is no experiment and no run {source!r} in the store", key, uri, hint))
    others = [run for run in runs if not but or run.data.tags.get("mlflow.parentRunId") != but]
    told = [each for each in (_told(spec, run) for run in others) if each is not None]
    if not told and len(others) == len(runs):
        wanted = ", ".join(objective.metric for objective in spec.objectives)
        message = f"none of the {len(runs)} trials of {source!r} can be learnt from"
        hint = f"it takes trials that ended, with {wanted} measured, and every searched key inside the space"
        raise UserError(Problem(message, key, uri, hint))
    return told


def _told(spec: ExperimentSpec, run: Any) -> Told | None:
    state = _STATES.get(run.data.tags.get("tuner.status", ""))
    if state is None or "tuner.mutations" in run.data.tags:  # that one has come to be another on the way
        return None
    names = originals(run.data.tags)
    fixed = {names.get(name, name).removeprefix(store.FIXED): value for name, value in run.data.tags.items()}
    params = fixed | {names.get(name, name): value for name, value in run.data.params.items()}
    try:
        assignment = draw(spec.space, lambda name, distribution: _value(name, distribution, params))
    except _Outside:
        return None
    if not spec.allows(assignment):
        return None
    metrics = {names.get(name, name): value for name, value in run.data.metrics.items()}
    values = [store.finite(metrics.get(f"best_{objective.metric}")) for objective in spec.objectives]
    if None in values:
        return Told(assignment, "failed") if state == "failed" else None
    numbers = [value for value in values if value is not None]
    epoch = int(metrics.get("best_epoch", 0))
    # Measured constraints as its last epoch had them: the store has no other at hand.
    violations = spec.limits.violations(spec.trial_config(assignment), metrics)
    return Told(assignment, state, numbers if state == "completed" else None, {epoch: numbers[0]}, violations)


def _value(name: str, distribution: Distribution, params: Mapping[str, str]) -> Value:
    """The value of a searched key in a run's parameters, which MLflow keeps as text."""
    text = params.get(name)
    options = distribution.values() if distribution.axis().kind == "category" else None
    if text is None:
        if options is None or None not in options:
            raise _Outside
        return None  # which is not recorded
    if options is not None:
        for option in options:
            if str(option) == text:
                return option
        raise _Outside
    try:
        number: Value = float(text)
        for candidate in (int(number), number) if number.is_integer() else (number,):
            try:
                distribution.encode(candidate)
            except ValueError:
                continue
            return candidate
    except ValueError:
        pass
    raise _Outside
