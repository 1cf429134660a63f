"""Whether the parts of an experiment fit together."""

from collections.abc import Iterator, Sequence
from typing import Any

from tuner.errors import Problem, allowed, collecting
from tuner.objectives import Objective
from tuner.search.conditions import check_conditions
from tuner.spec.constraints import Limits
from tuner.spec.sections import Resources
from tuner.spec.space_checks import check_corners, check_initial, check_mutations, check_plan, check_space
from tuner.train.trial_base import AnyTrial
from tuner.user_code import imports_allowed


def check_parts(parts: dict[str, Any]) -> Iterator[Problem]:
    """Everything that is wrong between the parts of an experiment, as far as the parts are there."""
    trial, space, search, scheduler = (parts.get(name) for name in ("trial", "space", "search", "scheduler"))
    objectives = parts.get("objectives")
    if trial is not None and objectives:
        yield from _check_metrics(trial, objectives, parts.get("stop") or {})
    unknown: list[Problem] = []
    if trial is not None and space is not None:
        limits = Limits(trial, space, parts.get("constraints") or ())
        unknown = list(limits.check())
        if search is not None and not search.learns_constraints and limits.measured:
            message = f"{search.kind} learns nothing from what is measured, as {limits.measured[0].text} is"
            hint = "use search: {kind: bayesian} or {kind: evolution}"
            unknown.append(Problem(message, "constraints", hint=hint))
    yield from unknown
    if scheduler is not None and trial is not None:
        yield from scheduler.check(trial.length)
    retry = parts.get("retry")
    if trial is not None and trial.is_function and retry is not None and retry.out_of_memory is not None:
        hint = "leave it out: it fails where it runs out of memory"
        yield Problem("a function of your own makes its own batches", "retry.out_of_memory", hint=hint)
    yield from _check_resources(trial, parts.get("resources"))
    if scheduler is not None and objectives and len(objectives) > 1 and (scheduler.prunes or scheduler.mutates):
        message = f"{scheduler.kind} compares trials by one objective, and there are {len(objectives)}"
        yield Problem(message, "scheduler.kind", hint="use kind: fifo, or one objective and constraints for the rest")
    if scheduler is not None and scheduler.mutates and parts.get("repeat", 1) > 1:
        message = f"{scheduler.kind} changes the configuration of a trial as it goes: there is none to repeat"
        yield Problem(message, "repeat", hint="leave it out, or use another scheduler")
    most = search.max_objectives if search is not None else None
    if search is not None and objectives and most is not None and len(objectives) > most:
        hint = "use search: {kind: bayesian} or {kind: evolution}"
        yield Problem(f"{search.kind} has one objective, and there are {len(objectives)}", "search.kind", hint=hint)
    if space is None:
        return
    refused = list(check_conditions(space))
    if not refused and search is not None:
        refused += search.check(space)
    if not refused and trial is not None:
        refused += check_space(trial, space, Limits(trial, space, parts.get("constraints") or ()).allows)
    if not refused and trial is not None and scheduler is not None and scheduler.mutates:
        refused += check_mutations(trial, space)
        for name, distribution in space.items():
            if distribution.when:
                message = f"{scheduler.kind} needs every key in every trial"
                refused.append(Problem(message, f"space.{name}.when", hint="leave the condition out"))
        if search is not None and not search.is_planned:
            hint = "use search: {kind: random} or {kind: qmc}: it draws the first configuration of each"
            refused.append(Problem(f"{scheduler.kind} finds its configurations itself", "search.kind", hint=hint))
    if not refused and trial is not None and search is not None:
        refused += check_initial(trial, space, search.initial, limits.allows, twice=search.allows_duplicates)
    if not refused and trial is not None and search is not None:
        plan = search.plan(space, limits.allows)
        refused += check_plan(trial, space, plan or ())
        if not refused:
            refused += check_corners(trial, space, limits.allows)
        if not refused and not unknown and plan is not None and not plan:
            refused.append(Problem("no configuration satisfies the constraints", "constraints"))
    yield from refused


def _check_resources(trial: AnyTrial | None, resources: Resources | None) -> Iterator[Problem]:
    """Whether a trial computes on what it takes. A record is taken at its word: there, it did not always have to."""
    gpu = getattr(resources, "gpu", "auto")
    if trial is not None and not trial.is_function and isinstance(gpu, float | int) and gpu > 1 and imports_allowed():
        message = f"a training computes on one GPU: of {gpu:g} the others would be reserved, and idle"
        hint = "allowed: auto, 0, a share such as 0.25, or 1; a function of your own (trial.target) may take more"
        yield Problem(message, "resources.gpu", hint=hint)


def _check_metrics(trial: AnyTrial, objectives: Sequence[Objective], stop: dict[str, float]) -> Iterator[Problem]:
    """Whether a trial can be judged by what judges it."""
    problems: list[Problem] = []
    for place, objective in enumerate(objectives):
        key = "objective" if len(objectives) == 1 else f"objective.{place}"
        with collecting(key, problems):
            trial.check_metric(objective.metric)
        if objective.metric in [other.metric for other in objectives[:place]]:
            problems.append(Problem(f"{objective.metric} stands twice", key, hint="keep one of them"))
    for name in stop:
        with collecting(f"stop.{name}", problems):
            trial.check_metric(name)
        if trial.metrics is None and name not in [objective.metric for objective in objectives]:
            hint = allowed(name, [objective.metric for objective in objectives])
            problems.append(Problem("which direction of it is better is not known", f"stop.{name}", hint=hint))
    yield from problems
