"""Reads an earlier run of a job from its journal."""

from dataclasses import replace
from functools import partial
from typing import Any, TypeGuard

from pydantic import ValidationError

from tuner.errors import Problem, UserError
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.validation_errors import problems_of
from tuner.storage.filesystem import below, list_checkpoints, relative, resolved
from tuner.storage.uris import is_inside
from tuner.trials.events import JobOpened, TrialStarted, events_of
from tuner.trials.journal import FILE, exists, text_of
from tuner.trials.leaderboard import ranked
from tuner.trials.resume.changed_data import changed_data
from tuner.trials.resume.replay import last_opening, replayed, rewind, stop
from tuner.trials.resume.resumed_job import ResumedJob
from tuner.trials.resume.same_experiment import as_measured, check_same, left_out, lies_in
from tuner.trials.trial import Trial


def read_past(spec: ExperimentSpec, folder: str, job: str, *, goes_on: bool = True, widens: bool = False) -> ResumedJob:
    """Read the journal in a job's folder.

    Args:
        spec: The experiment.
        folder: The job's folder.
        job: The job's id.
        goes_on: Whether its trials are to resume: those that had not ended begin again at their latest checkpoint.
        widens: Whether the space may be another one, as long as what was tried lies in it.

    Raises:
        UserError: The experiment is another one now, or nothing was written.
    """
    where = below(folder, FILE)
    if not exists(folder):
        raise UserError(Problem(f"no journal of job {job} is there", where=where))
    events = list(events_of(text_of(folder), where))
    if not any(isinstance(event, JobOpened) for event in events):
        hint = "run it without --resume: as a job of its own"
        raise UserError(Problem("the job was ended before anything of it was written", "--resume", where, hint))
    spec = as_measured(spec, last_opening(events))
    check_same(spec, last_opening(events).spec, where, ("space.",) if widens else ())
    for event in events if widens else ():
        if isinstance(event, TrialStarted) and not lies_in(spec.space, event.assignment):
            raise left_out(event.trial, event.assignment, where)
    past = replayed(spec, job, [event.placed(partial(resolved, folder=folder)) for event in events], where)
    if goes_on:
        past = replace(past, changed_data=changed_data(spec, events))
    there = _checkpoints_there(folder)
    for trial in past.trials if goes_on else ():
        if trial.status in ("running", "interrupted"):
            named = trial.latest
            # The last that is there; whether it can be read is seen when the trial begins.
            sound = (save for save in reversed(trial.saves) if save[0] in there)
            trial.latest, trial.latest_epoch, trial.checkpoint = next(sound, (None, 0, None))
            stop(trial)
            rewind(trial, trial.latest_epoch, spec)
            trial.status, trial.started, trial.resumed = "pending", None, trial.resumed + 1
            if named is not None and named != trial.latest:
                then = f"goes on from epoch {trial.latest_epoch}" if trial.latest_epoch else "begins again"
                past.missing.append(_missing(trial, named, folder, f"it {then}"))
    for trial in _kept(past, spec):
        if trial.checkpoint not in there:
            then = "it can neither be tested nor loaded from there; MLflow may have it, as an artifact of its run"
            past.missing.append(_missing(trial, str(trial.checkpoint), folder, then))
    return _confined(past, folder, spec.trial.targets)


def _checkpoints_there(folder: str) -> set[str]:
    try:
        return set(list_checkpoints(folder))
    except OSError as error:
        hint = "nothing was begun: try again when it can be"
        raise UserError(Problem(f"the job's files cannot be looked at: {error}", "storage", folder, hint)) from None


def _kept(past: ResumedJob, spec: ExperimentSpec) -> list[Trial]:
    """The trials that have ended and whose best checkpoint was to stay."""
    kept = [trial for trial in past.trials if trial.ended is not None and trial.checkpoint and not trial.dropped]
    if past.head.job or spec.checkpoints.keep == "all":
        return kept
    # An older journal does not have which checkpoints were dropped: all but the best, and some of failed trials.
    best = ranked(past.trials, spec.objectives, spec.repeat)[: spec.checkpoints.keep]
    return [trial for trial in kept if trial in best]


def _missing(trial: Trial, place: str, folder: str, then: str) -> str:
    return f"trial {trial.number}: its checkpoint {relative(place, folder)} is not in the job's folder; {then}"


def rebuilt(text: str, job: str, where: str) -> tuple[ExperimentSpec, ResumedJob]:
    """A job from the text of its journal alone: the experiment as it was run, and what came of it.

    It may be a stranger's: within `tuner.user_code.without_imports`, no code that it names is.

    Args:
        text: The journal.
        job: The job's id.
        where: Where the journal comes from, for an error to point to.

    Raises:
        UserError: Nothing was written, or what was is no experiment.
    """
    events = list(events_of(text, where))
    if not any(isinstance(event, JobOpened) for event in events):
        raise UserError(Problem("the job was ended before anything of it was written", where=where))
    try:
        spec = ExperimentSpec.model_validate(last_opening(events).spec)
    except ValidationError as error:
        problems = problems_of(error, ExperimentSpec)
        raise UserError(*(replace(problem, where=where) for problem in problems)) from None
    return spec, replayed(spec, job, events, where)


def _confined(past: ResumedJob, folder: str, targets: list[str]) -> ResumedJob:
    """An earlier run without files that lie outside of the job's folder: not the job's, they are not there for it.

    A journal from elsewhere, or of a job that was moved, must have nothing deleted or uploaded that is others', and
    no code called but `targets`.
    """

    def inside(place: Any) -> Any:
        return place if _is_own(place, folder) else None

    for trial in past.trials:
        trial.latest, trial.checkpoint = inside(trial.latest), inside(trial.checkpoint)
    if past.end is None:
        return past
    end, model = past.end.copy(), past.end.get("model")
    end["artifacts"], end["journal"] = inside(end["artifacts"]) or "", inside(end.get("journal")) or ""
    end["model"] = model | {"targets": targets} if model and inside(model.get("checkpoint")) else None
    return replace(past, end=end)


def _is_own(place: Any, folder: str) -> TypeGuard[str]:
    return isinstance(place, str) and is_inside(place, folder)
