"""Checks that an experiment is still the one of a job's journal: trials of different experiments are not comparable."""

import json
from typing import Any

from tuner.config_keys import Assignment, flattened
from tuner.errors import Problem, UserError
from tuner.search.distributions import same
from tuner.search.space import Space
from tuner.spec.experiment import ExperimentSpec
from tuner.trials.events import JobOpened
from tuner.trials.journal import as_plain
from tuner.trials.labels import label

_MAY_CHANGE = (
    *("resources.", "timeout", "trial_timeout", "stop.", "budget.", "retry.", "tracking.", "storage", "fail_after"),
    "trial.data.cache",
    *("search.trials", "search.warm_start"),
)
"""Keys of an experiment that do not influence a trial's numbers."""

_LEARN = "search.warm_start lets a new job with bayesian search learn from this job's trials that lie in the new space"


def left_out(trial: int, assignment: Assignment, where: str) -> UserError:
    """Return the error for a grid that lacks the configuration of an earlier trial.

    Args:
        trial: The trial's number.
        assignment: Its configuration.
        where: The job's folder.
    """
    hint = "--extend allows more values, not fewer; start a new job without --extend"
    message = f"no longer contains the configuration of trial {trial}: {label(assignment)}"
    return UserError(Problem(message, "space", where, hint))


def lies_in(space: Space, assignment: Assignment) -> bool:
    """Return whether a space contains a configuration."""
    try:
        for name, value in assignment.items():
            space[name].encode(value)
    except (KeyError, ValueError):
        return False
    return True


def as_measured(spec: ExperimentSpec, head: JobOpened) -> ExperimentSpec:
    """Return an experiment with the size of a batch that a job measured when it began.

    Args:
        spec: The experiment now.
        head: What was noted when the job began.
    """
    if head.batch_size is None or not spec.trial.measures_batch_size:
        return spec
    return spec.with_batch_size(head.batch_size)


def check_same(spec: ExperimentSpec, before: dict[str, Any], where: str, but: tuple[str, ...] = ()) -> None:
    """Check that an experiment has not changed in a key that influences a trial's numbers.

    Args:
        spec: The experiment now.
        before: The experiment of the journal, as plain values.
        where: The job's folder.
        but: Prefixes of further keys that may have changed.

    Raises:
        UserError: It has changed; with a problem for each key.
    """
    now, then = (flattened(each) for each in (json.loads(json.dumps(as_plain(spec))), before))
    # The trial's own value of a key that is always searched has no influence; older files may lack it.
    searched = {f"trial.{key}" for key, distribution in spec.space.items() if not distribution.when}
    changed = [
        key
        for key in now | then
        if not key.startswith(_MAY_CHANGE + but)
        and not same(now.get(key), then.get(key))
        and not (key in searched and key not in then)
    ]
    hint = "undo the change, or start a new job without --resume"
    problems = [
        Problem(
            f"was {short(then.get(key))} when the job began, and is {short(now.get(key))}",
            key,
            where,
            f"{hint}; {_LEARN}" if key.startswith("space.") else hint,
        )
        for key in changed
    ]
    if problems:
        raise UserError(*problems)


def short(value: Any) -> str:
    """Format a value as JSON, cut after 80 characters."""
    text = "not set" if value is None else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
