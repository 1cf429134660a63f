"""Complete the MLflow record of a job from its journal."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import Problem, UserError
from tuner.jobs.lock import alone_in
from tuner.jobs.preflight import check_store, tracking_uri
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.filesystem import below, checkpoints_in
from tuner.storage.uris import masked
from tuner.tracking import store
from tuner.tracking.health import is_there
from tuner.tracking.record import messages
from tuner.tracking.record.audit import MissingItem, lacking
from tuner.tracking.record.recorder import Links, Recorder
from tuner.tracking.relocation import relocate
from tuner.trials.journal import ended_event
from tuner.trials.resume.reading import read_past
from tuner.trials.resume.resumed_job import ResumedJob
from tuner.trials.resume.same_experiment import as_measured
from tuner.trials.resume.stored_jobs import find
from tuner.trials.status import BROKE_OFF_RESUMABLE

_MOST = 5  # missing items that a message lists; it counts the rest


@dataclass(frozen=True)
class Synced:
    """The result of `sync`.

    Args:
        job: The job's id.
        trials: The number of trials that have begun.
        links: The links to the record.
    """

    job: str
    trials: int
    links: Links


def _missing_items(uri: str, spec: ExperimentSpec, past: ResumedJob, parent: str, folder: str) -> list[MissingItem]:
    with store.reading(uri) as client:
        return lacking(client, uri, spec, past, parent, set(checkpoints_in(folder)))


def sync(
    spec: ExperimentSpec, source: Path, job: str | None = None, warn: Callable[[str], object] = lambda message: None
) -> Synced:
    """Complete the record of a job from its journal, end its runs, and check the record. Nothing is written twice.

    Args:
        spec: The experiment, from `tuner.spec.loader.load`.
        source: The experiment's file.
        job: The job's id; None for the last one.
        warn: Called with warnings: names that MLflow does not accept, and artifacts that have moved.

    Raises:
        UserError: There is no such job, it is still running, or the record is still incomplete afterwards.
    """
    uri = tracking_uri(spec)
    check_store(uri)
    if moved := relocate(uri, to_write=True):
        warn(moved)
    stored = find(spec.storage, spec.name, job, "tuner sync")
    job, folder = stored.id, below(spec.storage, spec.name, stored.folder)
    if not stored.is_original:
        hint = "tuner run FILE --resume --job ... --adopt resumes it as a job of its own, with runs of its own"
        message = f"{stored.folder} is a copy of job {job}, whose runs in MLflow are that job's own"
        raise UserError(Problem(message, "--job", folder, hint))
    with alone_in(folder) as lock:
        past = read_past(spec, folder, job, goes_on=False)
        spec = as_measured(spec, past.head)
        recorder = Recorder(spec, uri, lock)
        # A deleted store is created again, with everything from the journal.
        items = _missing_items(uri, spec, past, past.head.parent_run, folder) if is_there(uri) else []
        missing: dict[int, set[str]] = {}
        for item in items:
            if item.trial is not None:
                missing.setdefault(item.trial, set()).add(item.metric)
        unkept = [item.trial for item in items if item.is_checkpoint and item.trial is not None]
        links = recorder.open(
            job, folder, source, past.head.trials, past, warn, lacking=missing, unkept=unkept, only_completes=True
        )
        for trial in past.trials:
            if trial.ended is None:
                trial.end("interrupted", BROKE_OFF_RESUMABLE)
                trial.ended = trial.updated or trial.started  # the last known time
                recorder.put(ended_event(trial))
        summary = {"status": "interrupted", "ended_early": BROKE_OFF_RESUMABLE}
        recorder.job_ended(past.end or messages.end_of("KILLED", summary))
        recorder.close()
    if recorder.failure is not None:
        message = f"the record is still incomplete: {recorder.failure}"
        raise UserError(Problem(message, where=masked(uri), hint="run it again when the store takes it"))
    if items := _missing_items(uri, spec, past, links.parent_run_id, folder):
        more = f"; and {len(items) - _MOST} more" if len(items) > _MOST else ""
        message = f"the record is incomplete: {'; '.join(item.what for item in items[:_MOST])}{more}"
        raise UserError(
            Problem(message, where=masked(uri), hint="what was written is there; the rest lies in the journal")
        )
    return Synced(job, len(past.trials), links)
