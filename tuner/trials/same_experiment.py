"""Whether an experiment is the one that a journal tells of: trials of two are not to be compared."""

import json
from typing import Any

from tuner.config_keys import Assignment, flattened
from tuner.errors import Problem, UserError
from tuner.search.distributions import same
from tuner.search.space import Space
from tuner.spec.experiment import ExperimentSpec
from tuner.trials.journal import as_plain
from tuner.trials.labels import label

_MAY_CHANGE = (
    *("resources.", "timeout", "trial_timeout", "stop.", "budget.", "retry.", "tracking.", "storage", "fail_after"),
    *("search.trials", "search.warm_start"),
)
"""Parts of an experiment that decide nothing about a trial's numbers."""

_LEARN = (
    "there, search.warm_start lets bayesian search learn from this one's trials, as far as they lie in the new space"
)


def left_out(trial: int, assignment: Assignment, where: str) -> UserError:
    """A space that is to be widened lacks what a trial has tried."""
    hint = "a space that is widened may have more values, not fewer; run it without --extend: as a job of its own"
    return UserError(
        Problem(f"no longer holds what trial {trial} has tried: {label(assignment)}", "space", where, hint)
    )


def lies_in(space: Space, assignment: Assignment) -> bool:
    """Whether a space has each value of a configuration."""
    try:
        for name, value in assignment.items():
            space[name].encode(value)
    except (KeyError, ValueError):
        return False
    return True


def check_same(spec: ExperimentSpec, before: dict[str, Any], where: str, but: tuple[str, ...] = ()) -> None:
    """Trials of two different experiments are not to be compared."""
    now, then = (flattened(each) for each in (json.loads(json.dumps(as_plain(spec))), before))
    # What stands in the trial for a key that is always searched decides nothing; once it could be left out.
    searched = {f"trial.{key}" for key, distribution in spec.space.items() if not distribution.when}
    changed = [
        key
        for key in now | then
        if not key.startswith(_MAY_CHANGE + but)
        and not same(now.get(key), then.get(key))
        and not (key in searched and key not in then)
    ]
    hint = "undo the change, or run it without --resume: as a job of its own"
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
    """A value as JSON, of a long one its beginning."""
    text = "not set" if value is None else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
