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
from tuner.trials.journal import ended as ended_event
from tuner.trials.resume.reading import read_past
from tuner.trials.resume.resumed_job import ResumedJob
from tuner.trials.resume.stored_jobs import find
from tuner.trials.status import BROKE_OFF_RESUMABLE

_MOST = 5  # of what is lacking, before the rest is counted


@dataclass(frozen=True)
class Synced:
    """A record that was completed.

    Args:
        job: The job's id.
        trials: How many of its trials have begun.
        links: Where its record is.
    """

    job: str
    trials: int
    links: Links


def _lacks(uri: str, spec: ExperimentSpec, past: ResumedJob, parent: str, folder: str) -> list[MissingItem]:
    with store.reading(uri) as client:
        return lacking(client, uri, spec, past, parent, set(checkpoints_in(folder)))


def sync(
    spec: ExperimentSpec, source: Path, job: str | None = None, warn: Callable[[str], object] = lambda message: None
) -> Synced:
    """Write what the record of a job lacks, and read it back: nothing twice, no run left running.

    Args:
        spec: The experiment, as `tuner.spec.loader.load` gives it.
        source: Its file.
        job: The job's id; None for the last one.
        warn: Told of names that MLflow does not take, and where its artifacts are by now.

    Raises:
        UserError: There is no such job, it is still running, or the store does not take everything.
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
        recorder = Recorder(spec, uri, lock)
        # A store that is gone is made anew, with all that the journal has.
        lacks = _lacks(uri, spec, past, past.head.parent_run, folder) if is_there(uri) else []
        ended: dict[int, set[str]] = {}
        for lack in lacks:
            if lack.trial is not None:
                ended.setdefault(lack.trial, set()).add(lack.metric)
        unkept = [lack.trial for lack in lacks if lack.is_checkpoint and lack.trial is not None]
        links = recorder.open(
            job, folder, source, past.head.trials, past, warn, lacking=ended, unkept=unkept, only_completes=True
        )
        for trial in past.trials:
            if trial.ended is None:
                trial.end("interrupted", BROKE_OFF_RESUMABLE)
                trial.ended = trial.updated or trial.started  # as far as anybody knows
                recorder.put(ended_event(trial))
        summary = {"status": "interrupted", "ended_early": BROKE_OFF_RESUMABLE}
        recorder.job_ended(past.end or messages.end_of("KILLED", summary))
        recorder.close()
    if recorder.failure is not None:
        message = f"the record is still incomplete: {recorder.failure}"
        raise UserError(Problem(message, where=masked(uri), hint="run it again when the store takes it"))
    if lacks := _lacks(uri, spec, past, links.parent_run_id, folder):
        more = f"; and {len(lacks) - _MOST} more" if len(lacks) > _MOST else ""
        message = f"the record is incomplete: {'; '.join(lack.what for lack in lacks[:_MOST])}{more}"
        raise UserError(
            Problem(message, where=masked(uri), hint="what was written is there; the rest lies in the journal")
        )
    return Synced(job, len(past.trials), links)
