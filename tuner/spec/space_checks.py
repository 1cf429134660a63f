"""Whether a trial allows what a space and a plan would set in it."""

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
    """Each value that decides whether a distribution is allowed, merged into the trial and validated.

    Args:
        trial: What it is merged into.
        space: What is searched.
        allows: Whether a configuration would be tried at all.
    """
    for name, distribution in space.items():
        others = {key: value for key, value in _behind(space, name).items() if key != name}
        anyway = _refusals(trial, others)
        if not anyway and (problem := _names_nothing(trial, others, name)) is not None:
            yield problem
            continue
        told: set[str] = set()
        for corner in distribution.corners():
            assignment = _behind(space, name, corner)
            for problem in _refusals(trial, assignment) if allows(assignment) else ():
                # A mistake of another key is told at that key.
                culprit = _searched(problem.key, space)
                is_ours = culprit == name or (culprit is None and problem not in anyway)
                if is_ours and problem.message not in told:
                    told.add(problem.message)
                    inside = "" if problem.key in (name, "") else f" ({problem.key})"
                    yield Problem(f"{problem.message}{inside}", key=f"space.{name}", hint=_hint(problem, name, space))


def check_corners(trial: AnyTrial, space: Space, allows: Callable[[Assignment], bool]) -> Iterator[Problem]:
    """The corners of a space together: values that are allowed one by one need not be allowed together.

    Args:
        trial: What they are merged into.
        space: What is searched.
        allows: Whether a configuration would be tried at all.
    """
    yield from _check(trial, space, ((corner, "the corner") for corner in corners(space) if allows(corner)))


def check_plan(trial: AnyTrial, space: Space, plan: Iterable[Assignment]) -> Iterator[Problem]:
    """Each trial of a plan, validated."""
    yield from _check(trial, space, ((assignment, f"trial {number}") for number, assignment in enumerate(plan)))


def check_initial(
    trial: AnyTrial, space: Space, initial: Sequence[Assignment], allows: Callable[[Assignment], bool], *, twice: bool
) -> Iterator[Problem]:
    """The configurations that are to be tried first, as far as nothing is left out in them to be drawn.

    Args:
        trial: What they are merged into.
        space: What is searched.
        initial: Searched keys and their values.
        allows: Whether a configuration would be tried at all.
        twice: Whether a configuration may be tried twice.
    """
    for place, first in enumerate(initial):
        key = f"search.initial.{place}"
        counting = draw(space, lambda name, what, first=first: first.get(name, what.corners()[0]))  # type: ignore[misc]
        if not all(name in first for name in counting):
            continue
        refused = refusal(trial, first)
        if refused:
            yield Problem(f"is not allowed: {refused}", key)
        elif not allows(first):
            yield Problem("does not satisfy the constraints", key, hint="leave it out, or change them")
        elif index_of(initial[:place], first) is not None and not twice:
            yield Problem("stands twice: it would be tried twice, to the same numbers", key, hint="keep one of them")


def refusal(trial: AnyTrial, assignment: Assignment) -> str:
    """Why a trial does not allow a configuration; empty where it does."""
    return "; ".join(f"{problem.key}: {problem.message}" for problem in _refusals(trial, assignment))


def check_mutations(trial: AnyTrial, space: Space) -> Iterator[Problem]:
    """Whether a trial that has trained with one value of each key can go on with another."""
    for name, distribution in space.items():
        first, *others = distribution.corners()
        begun = merge(trial, _behind(space, name, first))
        reasons = (begun.why_not_resumable_as(merge(trial, _behind(space, name, other))) for other in others)
        reason = next(filter(None, reasons), "")
        if reason:
            hint = "leave it out of the space, or search it with another scheduler"
            yield Problem(f"cannot change while a trial runs: {reason}", f"space.{name}", hint=hint)


def resolved(trial: AnyTrial, assignment: Assignment) -> dict[str, Any]:
    """Every value of a trial with `assignment` merged in, by its dotted key."""
    config = merge(trial, assignment) if assignment else trial
    return dict(_leaves(config.model_dump(), ""))


def _names_nothing(trial: AnyTrial, others: Assignment, name: str) -> Problem | None:
    """What is wrong with a searched key of a mapping that the user filled, such as ``config``, and that lacks it.

    A typed part refuses such a key itself. A mapping that the file leaves out, or empty, is made of what is searched.
    """
    here: Any = merge(trial, others)
    above, rest = "trial", name
    while isinstance(here, BaseModel) and rest:
        part, _, rest = rest.partition(".")
        here, above = getattr(here, part, None), f"{above}.{part}"
    is_filled = isinstance(here, Mapping) and here and not any(isinstance(each, BaseModel) for each in here.values())
    # A record is taken at its word: once, what the file did not name was searched, too.
    if not is_filled or not rest or any(paths(here, rest)) or not imports_allowed():
        return None
    hint = f"{allowed(rest, names(here))}; or write it into {above}, with the value that it has without a search"
    return Problem(f"names nothing: {above} has no {rest}", f"space.{name}", hint=hint)


def _leaves(tree: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _check(trial: AnyTrial, space: Space, named: Iterable[tuple[Assignment, str]]) -> Iterator[Problem]:
    told: set[tuple[str, str]] = set()
    for assignment, what in named:
        for problem in _refusals(trial, assignment):
            if (problem.key, problem.message) not in told:
                told.add((problem.key, problem.message))
                name = _searched(problem.key, assignment)
                values = ", ".join(f"{key}={value}" for key, value in assignment.items())
                message = f"{what} ({values}) is not allowed: {problem.key}: {problem.message}"
                hint = _hint(problem, name, space) if name else problem.hint
                hint = hint or "each value is allowed, but not all of them together; constraints can say so"
                yield Problem(message, key=f"space.{name}" if name else "space", hint=hint)


def _behind(space: Space, name: str, *value: Value) -> Assignment:
    """A configuration in which `name` counts, with a `value` where one is given; the other keys at their first."""
    given = activating_values(space, name) | dict(zip([name], value, strict=False))
    return draw(space, lambda key, distribution: given.get(key, distribution.corners()[0]))


def _hint(problem: Problem, name: str, space: Space) -> str:
    """What to do about a mistake at a searched key: a field of one kind only counts where that kind is taken."""
    part, _, _ = name.rpartition(".")
    kind = f"{part}.kind"
    if problem.message.startswith("unknown key") and kind in space and kind != name and kind not in space[name].when:
        return f"not every {kind} has it: add when: {{{kind}: ...}} with the kinds that have; {problem.hint}"
    return problem.hint


def _refusals(trial: AnyTrial, assignment: Assignment) -> list[Problem]:
    """What is wrong with `trial` once `assignment` is merged into it, at keys of the trial."""
    try:
        merge(trial, assignment)
    except UserError as error:
        return error.problems
    except ValidationError as error:
        return problems_of(error, type(trial))
    return []


def _searched(key: str, names: Iterable[str]) -> str | None:
    """Which of the searched `names` set this key of the trial."""
    return max((name for name in names if f"{key}.".startswith(f"{name}.")), key=len, default=None)
