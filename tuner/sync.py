"""Make up for what the tracking server was not told of a job, from the job's journal."""

from dataclasses import dataclass
from pathlib import Path

from tuner import messages, tracking
from tuner.address import masked
from tuner.errors import Problem, UserError
from tuner.past import last_job, read_past
from tuner.preflight import check_store, tracking_uri
from tuner.run import job_folder
from tuner.sole import alone_in
from tuner.spec import ExperimentSpec

BROKE_OFF = "the job broke off; --resume goes on with it"
"""Why a trial or a job ended that nobody ended."""


@dataclass(frozen=True)
class Synced:
    """What was made whole.

    Args:
        job: The job's id.
        trials: How many trials it had begun.
        links: Where its record is.
    """

    job: str
    trials: int
    links: tracking.Links


def sync(spec: ExperimentSpec, source: Path, job: str | None = None) -> Synced:
    """Bring the record of a job to what its journal tells: nothing twice, no run left running.

    Args:
        spec: The experiment, as `tuner.reading.load` gives it.
        source: Its file.
        job: The job's id; None for the last one.

    Raises:
        UserError: There is no such job, it is still running, or the store does not take everything.
    """
    uri = tracking_uri(spec)
    check_store(uri)
    job = job or last_job(spec.storage, spec.name)
    folder = job_folder(spec, job)
    with alone_in(folder) as lock:
        past = read_past(spec, folder, job, goes_on=False)
        recorder = tracking.Recorder(spec, uri, lock)
        links = recorder.open(job, folder, source, past.head["trials"], past)
        for trial in past.trials:
            if trial.ended is None:
                trial.end("interrupted", BROKE_OFF)
                trial.ended = trial.updated or trial.started  # as far as anybody knows
                recorder.trial_ended(trial)
        summary = {"status": "interrupted", "ended_early": BROKE_OFF}
        recorder.job_ended(past.end or messages.end_of("KILLED", summary))
        recorder.close()
    if recorder.failure is not None:
        message = f"the record is not whole yet: {recorder.failure}"
        raise UserError(Problem(message, where=masked(uri), hint="run it again when the store takes it"))
    return Synced(job, len(past.trials), links)
