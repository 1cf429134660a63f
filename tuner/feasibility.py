"""Whether a trial allows what a space and a plan would set in it."""

from collections.abc import Iterable, Iterator

from pydantic import ValidationError

from tuner.errors import Problem, UserError
from tuner.space import Assignment, Space
from tuner.trial_config import TrialConfig, merge
from tuner.validation import problems_of


def check_space(trial: TrialConfig, space: Space) -> Iterator[Problem]:
    """Each value that decides whether a distribution is allowed, merged into the trial and validated."""
    first = {name: distribution.corners()[0] for name, distribution in space.items()}
    for name, distribution in space.items():
        others = {key: value for key, value in first.items() if key != name}
        anyway = _refusals(trial, others)
        told: set[str] = set()
        for corner in distribution.corners():
            for problem in _refusals(trial, others | {name: corner}):
                # A mistake of another key is told at that key.
                culprit = _searched(problem.key, space)
                is_ours = culprit == name or (culprit is None and problem not in anyway)
                if is_ours and problem.message not in told:
                    told.add(problem.message)
                    inside = "" if problem.key in (name, "") else f" ({problem.key})"
                    hint = problem.hint
                    if name.endswith(".kind") and culprit is None:  # the keys of the trial's own kind are still there
                        whole = name.removesuffix(".kind")
                        hint = f"vary the whole of it: {whole}: {{choice: [{{kind: {corner}}}, ...]}}"
                    yield Problem(f"{problem.message}{inside}", key=f"space.{name}", hint=hint)


def check_plan(trial: TrialConfig, plan: list[Assignment]) -> Iterator[Problem]:
    """Each trial of a plan, validated: values that are allowed one by one need not be allowed together."""
    told: set[tuple[str, str]] = set()
    for number, assignment in enumerate(plan):
        for problem in _refusals(trial, assignment):
            if (problem.key, problem.message) not in told:
                told.add((problem.key, problem.message))
                name = _searched(problem.key, assignment)
                values = ", ".join(f"{key}={value}" for key, value in assignment.items())
                message = f"trial {number} ({values}) is not allowed: {problem.key}: {problem.message}"
                hint = problem.hint or "each value is allowed, but not all of them together"
                yield Problem(message, key=f"space.{name}" if name else "space", hint=hint)


def _refusals(trial: TrialConfig, assignment: Assignment) -> list[Problem]:
    """What is wrong with `trial` once `assignment` is merged into it, at keys of the trial."""
    try:
        merge(trial, assignment)
    except UserError as error:
        return error.problems
    except ValidationError as error:
        return problems_of(error, TrialConfig)
    return []


def _searched(key: str, names: Iterable[str]) -> str | None:
    """Which of the searched `names` set this key of the trial."""
    return max((name for name in names if f"{key}.".startswith(f"{name}.")), key=len, default=None)
