"""An earlier run of a job, read from its journal."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeGuard

from pydantic import ValidationError

from tuner.config_keys import Assignment
from tuner.errors import Problem, UserError
from tuner.spec.experiment import ExperimentSpec
from tuner.spec.validation_errors import problems_of
from tuner.storage.filesystem import below, list_checkpoints, relative, resolved
from tuner.storage.uris import is_inside
from tuner.train.trial_base import AnyTrial
from tuner.trials.elapsed import Elapsed, seconds_of
from tuner.trials.events import (
    Event,
    JobClosed,
    JobEnd,
    JobOpened,
    JobOpening,
    JobRecorded,
    TrialDropped,
    TrialEnded,
    TrialEvent,
    TrialMutated,
    TrialReported,
    TrialSaved,
    TrialStarted,
    damaged,
    events_of,
)
from tuner.trials.journal import FILE, exists, text_of
from tuner.trials.labels import label
from tuner.trials.leaderboard import ranked
from tuner.trials.same_experiment import check_same, left_out, lies_in, short
from tuner.trials.trial import Mutation, Trial


@dataclass(frozen=True)
class ResumedJob:
    """An earlier run of a job.

    Args:
        job: The job's id.
        head: What was noted when it began.
        trials: Its trials by number; those that have not ended go on from their latest checkpoint.
        is_finished: Whether its search was through.
    """

    job: str
    head: JobOpened
    trials: list[Trial]
    is_finished: bool
    end: JobEnd | None = None
    """How its record ended; None where the job was ended before that."""
    seconds: float = 0.0
    """Wall-clock seconds of all its runs together, as far as they were written down."""
    paused: float = 0.0
    """Seconds between its runs."""
    ended: float = 0.0
    """When the last of them ended, in seconds since 1970."""
    asked: frozenset[int] = frozenset()
    """``search.trials`` as its user has given it so far."""
    openings: frozenset[str] = frozenset()
    """The tokens of its runs: its record has one of them, unless a copy of the job has continued the record."""
    missing: list[str] = field(default_factory=list)
    """The checkpoints that the journal names and that are not there, each with its trial, in words."""

    def elapsed(self, began: float) -> Elapsed:
        """The time of the job, whose next run `began`."""
        return Elapsed(began, self.seconds, self.paused + max(0.0, began - self.ended))


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
    check_same(spec, _head(events).spec, where, ("space.",) if widens else ())
    for event in events if widens else ():
        if isinstance(event, TrialStarted) and not lies_in(spec.space, event.assignment):
            raise left_out(event.trial, event.assignment, where)
    past = _replayed(spec, job, [event.placed(partial(resolved, folder=folder)) for event in events], where)
    there = _checkpoints_there(folder)
    for trial in past.trials if goes_on else ():
        if trial.status in ("running", "interrupted"):
            named = trial.latest
            # The last that is there; whether it can be read is seen when the trial begins.
            sound = (save for save in reversed(trial.saves) if save[0] in there)
            trial.latest, trial.latest_epoch, trial.checkpoint = next(sound, (None, 0, None))
            _stop(trial)
            _rewind(trial, trial.latest_epoch, spec)
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
        spec = ExperimentSpec.model_validate(_head(events).spec)
    except ValidationError as error:
        problems = problems_of(error, ExperimentSpec)
        raise UserError(*(replace(problem, where=where) for problem in problems)) from None
    return spec, _replayed(spec, job, events, where)


def _head(events: Sequence[Event]) -> JobOpened:
    return [event for event in events if isinstance(event, JobOpened)][-1]


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


def _replayed(spec: ExperimentSpec, job: str, events: Sequence[Event], where: str) -> ResumedJob:
    """What came of a job, event by event.

    Raises:
        UserError: They do not fit together.
    """
    trials: dict[int, Trial] = {}
    finished = False
    end: JobEnd | None = None
    began, before, seconds, paused = 0.0, 0.0, 0.0, 0.0
    for event in events:
        if isinstance(event, JobOpening):  # its `JobOpened` comes next, if the job came to that
            continue
        if isinstance(event, JobOpened):  # what lies between two runs of a job is no time of it
            seconds += max(0.0, before - began)
            began = event.began or event.time
            paused += max(0.0, began - before) if before else 0.0
        before = event.time
        if isinstance(event, JobRecorded):  # the job's end comes before that of its report
            before = max(began, began + seconds_of(event.end["tags"], began, before + seconds) - seconds)
        if isinstance(event, TrialEvent):
            _replay(trials, event, spec, where)
            continue
        finished = event.finished if isinstance(event, JobClosed) else finished and isinstance(event, JobRecorded)
        end = event.end if isinstance(event, JobRecorded) else None
    seconds += max(0.0, before - began)
    best = [number for number in (end["winner"], *end["front"]) if number is not None] if end else []
    if not trials.keys() >= set(best):
        raise damaged(f"nothing tells of trial {max(best)}, which is among the best", where)
    opened = [event for event in events if isinstance(event, JobOpened)]
    asked = [event.spec.get("search", {}).get("trials") if event.asked is None else event.asked for event in opened]
    return ResumedJob(
        job,
        _head(events),
        [trials[number] for number in sorted(trials)],
        finished,
        end,
        seconds,
        paused,
        before,
        asked=frozenset(each for each in asked if isinstance(each, int)),
        openings=frozenset(
            event.opening for event in events if isinstance(event, JobOpening | JobOpened) and event.opening
        ),
    )


def _replay(trials: dict[int, Trial], event: TrialEvent, spec: ExperimentSpec, where: str) -> None:
    """Apply an event to the trials."""
    is_new = event.trial not in trials
    if is_new:
        if not isinstance(event, TrialStarted) or event.trial != len(
            trials
        ):  # they begin in the order of their numbers
            raise damaged(f"nothing tells how trial {min(len(trials), event.trial)} began", where)
        trials[event.trial] = _begun(spec, event, where)
    trial = trials[event.trial]
    match event:
        case TrialStarted() if not is_new:
            _stop(trial)
            _rewind(trial, event.epoch, spec)
            trial.status, trial.started, trial.resumed = "running", event.time, trial.resumed + 1
        case TrialReported():
            report = dict(event.report)
            _check_measured(report, spec, where)
            trial.take(report, spec.objective, event.time, spec.objectives[1:])
            trial.reports.append((report, event.time))
        case TrialSaved():
            trial.latest, trial.latest_epoch, trial.checkpoint = event.latest, event.epoch, event.best
            if event.latest is not None:
                trial.saves.append((event.latest, event.epoch, event.best))
        case TrialDropped():
            trial.dropped = True
        case TrialMutated():
            mutation = Mutation(event.epoch, event.parent, event.before, event.after)
            config = _config(spec, mutation.after, trial.config.seed, where)
            trial.mutate(mutation, config, event.latest)
            trial.saves = [(event.latest, mutation.epoch, trial.checkpoint)] if event.latest is not None else []
        case TrialEnded():
            trial.status, trial.reason, trial.traceback = event.status, event.reason, event.traceback
            trial.violations, trial.attributes = event.violations, event.attributes
            trial.checkpoint, trial.ended = event.best, event.time
            trial.host, trial.lost, trial.damaged = event.host, event.lost, event.damaged
            trial.micro_batches = event.micro_batches
            if trial.best is None and trial.not_finite and trial.status in ("completed", "pruned"):
                # Of an older version, which took an infinite score for one.
                trial.status, trial.reason = "diverged", "; ".join(trial.not_finite.values())


def _stop(trial: Trial) -> None:
    """Keep the time that a trial ran until it was last heard of: that until it is begun again is no time of it."""
    if trial.started is not None:
        trial.spent += max(0.0, (trial.ended or trial.updated or trial.started) - trial.started)


def _rewind(trial: Trial, epoch: int, spec: ExperimentSpec) -> None:
    """Take a trial back to `epoch`: what it reported later is reported again."""
    trial.reason, trial.ended = "", None
    trial.reports = [(report, when) for report, when in trial.reports if report["epoch"] <= epoch]
    trial.saves = [save for save in trial.saves if save[1] <= epoch]
    trial.epoch, trial.best, trial.best_report, trial.best_assignment, trial.series = 0, None, {}, {}, {}
    trial.not_finite = {}
    if epoch == 0:
        trial.mutations = []  # it begins as what it has become
    for report, when in trial.reports:
        trial.take(report, spec.objective, when, spec.objectives[1:])
    if trial.best is None:
        trial.checkpoint = None


def _config(spec: ExperimentSpec, assignment: Assignment, seed: int | None, where: str) -> AnyTrial:
    """One whole trial. Raises UserError where the space does not have it, or the trial does not allow it."""
    try:
        for name, value in assignment.items():
            spec.space[name].encode(value)
        return spec.trial_config(assignment).model_copy(update={"seed": seed})
    except (KeyError, ValueError, UserError) as error:  # pydantic's is a ValueError
        raise damaged(f"{short(assignment)} is no configuration of this experiment: {error}", where) from None


def _check_measured(report: dict[str, Any], spec: ExperimentSpec, where: str) -> None:
    """Raise UserError where an objective is no number."""
    for objective in spec.objectives:
        value = report.get(objective.metric)
        if value is not None and type(value) not in (int, float):
            raise damaged(f"{objective.metric} was {short(value)}, no number", where)


def _begun(spec: ExperimentSpec, event: TrialStarted, where: str) -> Trial:
    config = _config(spec, event.assignment, event.seed, where)
    label_of = label(event.assignment)
    return Trial(event.trial, event.assignment, config, label_of, status="running", started=event.time)
