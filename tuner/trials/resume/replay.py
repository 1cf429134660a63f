"""What came of a job, event by event."""

from collections.abc import Sequence
from typing import Any

from tuner.config_keys import Assignment
from tuner.errors import UserError
from tuner.spec.experiment import ExperimentSpec
from tuner.train.trial_base import AnyTrial
from tuner.trials.elapsed import seconds_of
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
)
from tuner.trials.labels import label
from tuner.trials.resume.resumed_job import ResumedJob
from tuner.trials.resume.same_experiment import short
from tuner.trials.trial import Mutation, Trial


def last_opening(events: Sequence[Event]) -> JobOpened:
    """The event that the last run of a job began with."""
    return [event for event in events if isinstance(event, JobOpened)][-1]


def replayed(spec: ExperimentSpec, job: str, events: Sequence[Event], where: str) -> ResumedJob:
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
        last_opening(events),
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
            stop(trial)
            rewind(trial, event.epoch, spec)
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


def stop(trial: Trial) -> None:
    """Keep the time that a trial ran until it was last heard of: that until it is begun again is no time of it."""
    if trial.started is not None:
        trial.spent += max(0.0, (trial.ended or trial.updated or trial.started) - trial.started)


def rewind(trial: Trial, epoch: int, spec: ExperimentSpec) -> None:
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
