"""The trials of earlier jobs, read from MLflow, for a sampler to learn from."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuner.config_keys import Value
from tuner.errors import Problem, UserError
from tuner.formatting import counted
from tuner.search.conditions import draw
from tuner.search.searcher import State, TrialOutcome
from tuner.search.space import Distribution
from tuner.spec.experiment import ExperimentSpec
from tuner.tracking import store
from tuner.tracking.names import originals

_STATES: dict[str, State] = {"completed": "completed", "pruned": "pruned", "failed": "failed", "diverged": "failed"}


class _LeftOut(Exception):
    """A trial cannot be learnt from; its text is the reason, to follow a number of trials."""


@dataclass(frozen=True)
class WarmStart:
    """The trials of earlier jobs.

    Args:
        told: The trials that a sampler learns from.
        left_out: The number of other trials, by reason.
        source: The value of ``search.warm_start``; empty if it is not set.
    """

    told: Sequence[TrialOutcome] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    source: str = ""

    def explain(self) -> str:
        """Return how many trials the sampler learns from, how many not, and why; empty without a source."""
        if not self.source:
            return ""
        total = len(self.told) + sum(self.left_out.values())
        text = f"learning from {len(self.told)} of the {counted(total, 'trial')} of {self.source!r}"
        by_count = sorted(self.left_out.items(), key=lambda pair: (-pair[1], pair[0]))
        return f"{text}; not from {', '.join(f'{count} {why}' for why, count in by_count)}" if by_count else text


def learnt(spec: ExperimentSpec, uri: str, but: str = "") -> WarmStart:
    """Read the trials that ``search.warm_start`` names and that lie in the space and satisfy the constraints.

    Args:
        spec: The experiment.
        uri: MLflow's tracking URI.
        but: The id of the job's own run, whose trials are ignored: its journal has them.

    Raises:
        UserError: There is no such experiment or run, it cannot be read, or none of its trials can be learnt from.
    """
    source = spec.search.warm_start_source
    if source is None:
        return WarmStart()
    with store.reading(uri) as client:
        runs = store.trial_runs(client, source)
    key = "search.warm_start"
    if runs is None:
        hint = "give the name of an MLflow experiment, or the id of a job's run"
        raise UserError(Problem(f"there is no experiment and no run {source!r} in the store", key, uri, hint))
    others = [run for run in runs if not but or run.data.tags.get("mlflow.parentRunId") != but]
    outcomes: list[TrialOutcome] = []
    left_out: Counter[str] = Counter()
    for run in others:
        try:
            outcomes.append(_outcome(spec, run))
        except _LeftOut as reason:
            left_out[str(reason)] += 1
    found = WarmStart(outcomes, left_out, source)
    if not outcomes and len(others) == len(runs):
        wanted = ", ".join(objective.metric for objective in spec.objectives)
        why = f": {', '.join(f'{count} {reason}' for reason, count in left_out.items())}" if left_out else ""
        message = f"none of the {counted(len(runs), 'trial')} of {source!r} can be learnt from{why}"
        hint = f"it takes trials that ended, with {wanted} measured, and every searched key inside the space"
        raise UserError(Problem(message, key, uri, hint))
    return found


def _outcome(spec: ExperimentSpec, run: Any) -> TrialOutcome:
    status = run.data.tags.get("tuner.status", "")
    state = _STATES.get(status)
    if state is None:
        raise _LeftOut(status or "not ended")
    if "tuner.mutations" in run.data.tags:  # its result does not belong to one configuration
        raise _LeftOut("mutated by a population")
    names = originals(run.data.tags)
    fixed = {names.get(name, name).removeprefix(store.FIXED): value for name, value in run.data.tags.items()}
    params = fixed | {names.get(name, name): value for name, value in run.data.params.items()}
    assignment = draw(spec.space, lambda name, distribution: _value(name, distribution, params))
    if not spec.allows(assignment):
        raise _LeftOut("that the trial or the constraints do not allow")
    metrics = {names.get(name, name): value for name, value in run.data.metrics.items()}
    values = [store.finite(metrics.get(f"best_{objective.metric}")) for objective in spec.objectives]
    if None in values:
        if state == "failed":
            return TrialOutcome(assignment, "failed")
        missing = spec.objectives[values.index(None)].metric
        raise _LeftOut(f"without {missing}")
    numbers = [value for value in values if value is not None]
    epoch = int(metrics.get("best_epoch", 0))
    # The run has the measured constraints of its last epoch only, not of its best one.
    violations = spec.constraint_set.violations(spec.trial_config(assignment), metrics)
    return TrialOutcome(assignment, state, numbers if state == "completed" else None, {epoch: numbers[0]}, violations)


def _value(name: str, distribution: Distribution, params: Mapping[str, str]) -> Value:
    """Return the value of a searched key from a run's parameters, which MLflow stores as text."""
    text = params.get(name)
    options = distribution.values() if distribution.axis().kind == "category" else None
    if text is None:
        if options is None or None not in options:
            raise _LeftOut(f"without {name}")
        return None  # None is not recorded as a parameter
    if options is not None:
        for option in options:
            if str(option) == text:
                return option
        raise _LeftOut(f"with {name} outside of the space")
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
    raise _LeftOut(f"with {name} outside of the space")
