"""Checks that the sections of an experiment fit together."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tuner.errors import Problem, allowed, collecting
from tuner.formatting import counted
from tuner.objectives import Objective, is_measured, mode_of
from tuner.search.conditions import check_conditions
from tuner.search.space import Space
from tuner.spec.constraints import ConstraintSet
from tuner.spec.sections import Resources
from tuner.spec.space_checks import check_corners, check_initial, check_mutations, check_plan, check_space
from tuner.train.trial_base import AnyTrial
from tuner.user_code import imports_allowed

_BATCH_SIZE = "data.batch_size"


def check_sections(sections: dict[str, Any]) -> Iterator[Problem]:
    """Check the sections of an experiment against each other.

    Args:
        sections: The valid sections by the names of their fields; invalid ones are missing.
    """
    trial, space, search, scheduler = (sections.get(name) for name in ("trial", "space", "search", "scheduler"))
    objectives = sections.get("objectives")
    if trial is not None and objectives:
        yield from _check_metrics(trial, objectives, sections.get("stop") or {})
    in_constraints: list[Problem] = []
    if trial is not None and space is not None:
        constraints = ConstraintSet(trial, space, sections.get("constraints") or ())
        in_constraints = list(constraints.check())
        if search is not None and not search.learns_constraints and constraints.measured:
            message = f"{search.kind} ignores constraints on metrics, such as {constraints.measured[0].text}"
            hint = "use search: {kind: bayesian} or {kind: evolution}"
            in_constraints.append(Problem(message, "constraints", hint=hint))
    yield from in_constraints
    if scheduler is not None and trial is not None:
        yield from scheduler.check(trial.length)
    retry = sections.get("retry")
    if trial is not None and trial.is_function and retry is not None and retry.out_of_memory is not None:
        hint = "leave it out: a trial that runs out of memory fails"
        yield Problem("your own function makes its own batches", "retry.out_of_memory", hint=hint)
    yield from _check_resources(trial, sections.get("resources"))
    if scheduler is not None and objectives and len(objectives) > 1 and (scheduler.prunes or scheduler.mutates):
        message = f"{scheduler.kind} compares trials by one objective, but there are {len(objectives)}"
        yield Problem(message, "scheduler.kind", hint="use kind: fifo, or one objective and constraints for the rest")
    if scheduler is not None and scheduler.mutates and sections.get("repeat", 1) > 1:
        message = f"{scheduler.kind} changes the configurations of running trials: they cannot be repeated"
        yield Problem(message, "repeat", hint="leave it out, or use another scheduler")
    most = search.max_objectives if search is not None else None
    if search is not None and objectives and most is not None and len(objectives) > most:
        hint = "use search: {kind: bayesian} or {kind: evolution}"
        yield Problem(f"{search.kind} supports {most} objective, not {len(objectives)}", "search.kind", hint=hint)
    if space is None:
        return
    yield from _check_one_teacher(space)
    if trial is not None:
        yield from _check_batch_size(trial, space)
    problems = list(check_conditions(space))
    if not problems and search is not None:
        problems += search.check(space)
    if not problems and trial is not None:
        problems += check_space(trial, space, constraints.allows)
    if not problems and trial is not None and scheduler is not None and scheduler.mutates:
        problems += check_mutations(trial, space)
        for name, distribution in space.items():
            if distribution.when:
                message = f"{scheduler.kind} needs every key in every trial"
                problems.append(Problem(message, f"space.{name}.when", hint="leave the condition out"))
        if search is not None and not search.is_planned:
            hint = "use search: {kind: random} or {kind: qmc}, which draws the first configuration of each trial"
            problems.append(Problem(f"{scheduler.kind} chooses configurations itself", "search.kind", hint=hint))
    if not problems and trial is not None and search is not None:
        problems += check_initial(
            trial, space, search.initial, constraints.allows, allows_duplicates=search.allows_duplicates
        )
    if not problems and trial is not None and search is not None:
        plan = search.plan(space, constraints.allows)
        problems += check_plan(trial, space, plan or ())
        if not problems:
            problems += check_corners(trial, space, constraints.allows)
        if not problems and not in_constraints and plan is not None and not plan:
            problems.append(Problem("no configuration satisfies the constraints", "constraints"))
    yield from problems


def _check_one_teacher(space: Space) -> Iterator[Problem]:
    """Check that the space does not search the teacher, of which a job keeps a copy."""
    for key in space:
        if key in ("distillation", "distillation.teacher"):
            hint = "search distillation.alpha and distillation.temperature, and run a job for each teacher"
            yield Problem("a job has one teacher", f"space.{key}", hint=hint)


def _check_batch_size(trial: AnyTrial, space: Space) -> Iterator[Problem]:
    """Check that the size of a batch is either measured, once for all trials, or searched."""
    hint = "give trial.data.batch_size a number, or leave it out of the space: all trials get the measured size"
    for key, distribution in space.items():
        if key not in ("data", _BATCH_SIZE):
            continue
        sizes = [each.get("batch_size") if isinstance(each, Mapping) else each for each in distribution.corners()]
        if trial.measures_batch_size and (key == _BATCH_SIZE or any(size is not None for size in sizes)):
            yield Problem("auto measures the size that the space searches", f"space.{key}", hint=hint)
        elif "auto" in sizes:
            hint = "set trial.data.batch_size: auto and leave it out of the space, or list numbers"
            yield Problem("auto is measured once for all trials, and no value to try", f"space.{key}", hint=hint)


def _check_resources(trial: AnyTrial | None, resources: Resources | None) -> Iterator[Problem]:
    """Check that a trial can use its resources. Journals are not checked."""
    if trial is None or resources is None or resources.workers is None or not imports_allowed():
        return
    workers, gpu = resources.workers, resources.gpu
    if trial.is_function:
        if workers > 1:
            hint = "leave it out: it has all CPU cores and GPUs of the trial, and may start processes itself"
            yield Problem("your own function is one process", "resources.workers", hint=hint)
    elif isinstance(gpu, float | int) and gpu and gpu != workers and (workers > 1 or gpu > 1):
        message = f"{gpu:g} is not one GPU for each of {counted(workers, 'worker')}"
        hint = f"allowed: auto, {workers}, or 0 for CPU cores alone; without workers there is one for each GPU"
        yield Problem(message, "resources.gpu", hint=hint)


def _check_metrics(trial: AnyTrial, objectives: Sequence[Objective], stop: dict[str, float]) -> Iterator[Problem]:
    """Check the metrics in ``objective`` and ``stop``."""
    problems: list[Problem] = []
    for index, objective in enumerate(objectives):
        key = "objective" if len(objectives) == 1 else f"objective.{index}"
        with collecting(key, problems):
            trial.check_metric(objective.metric)
        problems += _check_mode(trial, objective, key)
        if objective.metric in [other.metric for other in objectives[:index]]:
            problems.append(Problem(f"{objective.metric} is listed twice", key, hint="keep one of them"))
    for name in stop:
        with collecting(f"stop.{name}", problems):
            trial.check_metric(name)
        if trial.metrics is None and name not in [objective.metric for objective in objectives]:
            hint = allowed(name, [objective.metric for objective in objectives])
            problems.append(Problem("it is unknown which direction is better", f"stop.{name}", hint=hint))
    yield from problems


def _check_mode(trial: AnyTrial, objective: Objective, key: str) -> Iterator[Problem]:
    """Check the direction of an objective that the training loop measures. Journals of older versions may be wrong."""
    metric = objective.metric
    if trial.metrics is None or not is_measured(metric) or not imports_allowed():
        return
    if metric not in (*trial.metrics, *trial.costly_metrics):
        return
    if objective.mode != (better := mode_of(metric)):
        compared = "higher" if better == "max" else "lower"
        message = f"{metric} is better the {compared} it is, and {objective.mode} would make the worst trial the winner"
        yield Problem(message, f"{key}.mode", hint=f"set mode: {better}, or name the metric alone: {metric}")
