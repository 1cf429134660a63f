"""Checks that the values of a space, and the configurations of a plan, give valid trials."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from tuner.config_keys import Assignment, Value, names, paths
from tuner.errors import Problem, UserError, allowed
from tuner.search.conditions import activating_values, corners, draw
from tuner.search.distributions import index_of
from tuner.search.space import Space
from tuner.spec.validation_errors import problems_of
from tuner.train.trial_base import AnyTrial, merge
from tuner.user_code import imports_allowed


def check_space(trial: AnyTrial, space: Space, allows: Callable[[Assignment], bool]) -> Iterator[Problem]:
    """Check each distribution on its own: merge its corners into the trial and validate it.

    Args:
        trial: The trial.
        space: The search space.
        allows: Whether the constraints allow a configuration.
    """
    for name, distribution in space.items():
        others = {key: value for key, value in _with_active(space, name).items() if key != name}
        problems_without = _problems(trial, others)
        if not problems_without and (problem := _unknown_key(trial, others, name)) is not None:
            yield problem
            continue
        seen: set[str] = set()
        for corner in distribution.corners():
            assignment = _with_active(space, name, corner)
            for problem in _problems(trial, assignment) if allows(assignment) else ():
                # A mistake that another searched key causes is reported at that key.
                cause = _searched(problem.key, space)
                is_own = cause == name or (cause is None and problem not in problems_without)
                if is_own and problem.message not in seen:
                    seen.add(problem.message)
                    inside = "" if problem.key in (name, "") else f" ({problem.key})"
                    yield Problem(f"{problem.message}{inside}", key=f"space.{name}", hint=_hint(problem, name, space))


def check_corners(trial: AnyTrial, space: Space, allows: Callable[[Assignment], bool]) -> Iterator[Problem]:
    """Check the corners of the space, because values that are valid alone may not be valid together.

    Args:
        trial: The trial.
        space: The search space.
        allows: Whether the constraints allow a configuration.
    """
    yield from _check(trial, space, ((corner, "the corner") for corner in corners(space) if allows(corner)))


def check_plan(trial: AnyTrial, space: Space, plan: Iterable[Assignment]) -> Iterator[Problem]:
    """Check each configuration of a plan."""
    yield from _check(trial, space, ((assignment, f"trial {number}") for number, assignment in enumerate(plan)))


def check_initial(
    trial: AnyTrial,
    space: Space,
    initial: Sequence[Assignment],
    allows: Callable[[Assignment], bool],
    *,
    allows_duplicates: bool,
) -> Iterator[Problem]:
    """Check the complete configurations in ``search.initial``; the missing keys of the others are drawn later.

    Args:
        trial: The trial.
        space: The search space.
        initial: The configurations to try first.
        allows: Whether the constraints allow a configuration.
        allows_duplicates: Whether a configuration may be tried twice.
    """
    for index, first in enumerate(initial):
        key = f"search.initial.{index}"
        active = draw(space, lambda name, dist, first=first: first.get(name, dist.corners()[0]))  # type: ignore[misc]
        if not all(name in first for name in active):
            continue
        reason = refusal(trial, first)
        if reason:
            yield Problem(f"is not allowed: {reason}", key)
        elif not allows(first):
            yield Problem("does not satisfy the constraints", key, hint="leave it out, or change the constraints")
        elif index_of(initial[:index], first) is not None and not allows_duplicates:
            yield Problem("is listed twice: both trials would give the same result", key, hint="keep one of them")


def refusal(trial: AnyTrial, assignment: Assignment) -> str:
    """Why a configuration is not a valid trial; empty if it is."""
    return "; ".join(f"{problem.key}: {problem.message}" for problem in _problems(trial, assignment))


def check_mutations(trial: AnyTrial, space: Space) -> Iterator[Problem]:
    """Check that a trial can resume after a scheduler has changed the value of a key."""
    for name, distribution in space.items():
        first, *others = distribution.corners()
        before = merge(trial, _with_active(space, name, first))
        reasons = (before.why_not_resumable_as(merge(trial, _with_active(space, name, other))) for other in others)
        reason = next(filter(None, reasons), "")
        if reason:
            hint = "leave it out of the space, or search it with another scheduler"
            yield Problem(f"cannot change while a trial runs: {reason}", f"space.{name}", hint=hint)


def resolved(trial: AnyTrial, assignment: Assignment) -> dict[str, Any]:
    """The values of a trial with `assignment` merged in, by dotted key."""
    config = merge(trial, assignment) if assignment else trial
    return dict(_leaves(config.model_dump(), ""))


def _unknown_key(trial: AnyTrial, others: Assignment, name: str) -> Problem | None:
    """Report a searched key that a mapping filled by the user, such as ``config``, does not have.

    A typed section refuses unknown keys itself. An empty mapping is filled from the space and thus has every key.
    """
    node: Any = merge(trial, others)
    path, rest = "trial", name
    while isinstance(node, BaseModel) and rest:
        step, _, rest = rest.partition(".")
        node, path = getattr(node, step, None), f"{path}.{step}"
    is_filled = isinstance(node, Mapping) and node and not any(isinstance(each, BaseModel) for each in node.values())
    # Journals are not checked: older versions accepted such keys.
    if not is_filled or not rest or any(paths(node, rest)) or not imports_allowed():
        return None
    hint = f"{allowed(rest, names(node))}; or add it to {path}, with the value that it has without a search"
    return Problem(f"does not exist: {path} has no {rest}", f"space.{name}", hint=hint)


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check(trial: AnyTrial, space: Space, named: Iterable[tuple[Assignment, str]]) -> Iterator[Problem]:
    seen: set[tuple[str, str]] = set()
    for assignment, description in named:
        for problem in _problems(trial, assignment):
            if (problem.key, problem.message) not in seen:
                seen.add((problem.key, problem.message))
                name = _searched(problem.key, assignment)
                values = ", ".join(f"{key}={value}" for key, value in assignment.items())
                message = f"{description} ({values}) is not allowed: {problem.key}: {problem.message}"
                hint = _hint(problem, name, space) if name else problem.hint
                hint = hint or "each value is allowed, but not this combination; a constraint can exclude it"
                yield Problem(message, key=f"space.{name}" if name else "space", hint=hint)


def _with_active(space: Space, name: str, *value: Value) -> Assignment:
    """A configuration in which `name` is active, with `value` if given; other keys have their first corner."""
    fixed = activating_values(space, name) | dict(zip([name], value, strict=False))
    return draw(space, lambda key, distribution: fixed.get(key, distribution.corners()[0]))


def _hint(problem: Problem, name: str, space: Space) -> str:
    """A hint for a mistake at a searched key; it suggests a condition if only some kinds have the field."""
    section, _, _ = name.rpartition(".")
    kind = f"{section}.kind"
    if problem.message.startswith("unknown key") and kind in space and kind != name and kind not in space[name].when:
        return f"not every {kind} has it: add when: {{{kind}: ...}} with the kinds that have it; {problem.hint}"
    return problem.hint


def _problems(trial: AnyTrial, assignment: Assignment) -> list[Problem]:
    """The mistakes in `trial` after `assignment` is merged into it, at keys of the trial."""
    try:
        merge(trial, assignment)
    except UserError as error:
        return error.problems
    except ValidationError as error:
        return problems_of(error, type(trial))
    return []


def _searched(key: str, names: Iterable[str]) -> str | None:
    """The one of the searched `names` that sets this key of the trial; None if there is none."""
    return max((name for name in names if f"{key}.".startswith(f"{name}.")), key=len, default=None)
