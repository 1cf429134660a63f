"""The output of a recorded trial, from its job's folder or from MLflow, also while the trial runs."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from tuner.errors import Problem, UserError
from tuner.tracking import store
from tuner.tracking.queries import RecordedJob, RecordedTrial, trials_of
from tuner.trials import output_files

_READ_INTERVAL = 0.5  # seconds between reads of a file that grows
_STATUS_INTERVAL = 2.0  # seconds between queries whether its trial has ended


def output_of(client: Any, job: RecordedJob, number: int, *, follow: bool = False) -> Iterator[bytes]:
    """Yield what a trial printed, in chunks.

    Args:
        client: A client of MLflow's store.
        job: The trial's job.
        number: The trial's number.
        follow: Whether to wait for more until the trial ends.

    Raises:
        UserError: There is no such trial, or its output cannot be read from here.
    """
    trial = _trial(client, job, number)
    file = output_files.output_path(job.tags.get("tuner.folder", ""), number)
    try:
        printed = output_files.read(file)
    except Exception as error:  # an unreachable storage may raise anything
        yield _artifact(client, job, trial, f"{file} cannot be read: {error}")
        return
    if printed is None and not (follow and _is_running(client, trial)):
        yield _artifact(client, job, trial, f"there is no {file}")
        return
    yield printed or b""
    if follow:
        yield from _growing(client, trial, file, len(printed or b""))


def _trial(client: Any, job: RecordedJob, number: int) -> RecordedTrial:
    trials = trials_of(client, job)
    found = next((trial for trial in trials if trial.number == number), None)
    if found is None:
        numbers = [trial.number for trial in trials]
        hint = f"it has trials {numbers[0]} to {numbers[-1]}" if numbers else "none of its trials has begun"
        raise UserError(Problem(f"the job {job.id} of {job.experiment} has no trial {number}", hint=hint))
    return found


def _growing(client: Any, trial: RecordedTrial, file: str, seen: int) -> Iterator[bytes]:
    """Yield what is appended to a file after its first `seen` bytes, until the trial has ended."""
    checked = time.monotonic()
    is_over = False
    while not is_over:
        time.sleep(_READ_INTERVAL)
        if time.monotonic() - checked > _STATUS_INTERVAL:
            is_over, checked = not _is_running(client, trial), time.monotonic()
        with contextlib.suppress(OSError):  # a storage may be unreachable for a while
            content = output_files.read(file) or b""
            # A file that is shorter than before had its middle cut out: continue at its new end.
            yield content[seen:]
            seen = len(content)


def _is_running(client: Any, trial: RecordedTrial) -> bool:
    run = store.run_of(client, trial.run.info.run_id)
    return run is not None and run.info.status == "RUNNING"


def _artifact(client: Any, job: RecordedJob, trial: RecordedTrial, why: str) -> bytes:
    """Return a trial's output from MLflow.

    Args:
        client: A client of MLflow's store.
        job: The trial's job.
        trial: The trial.
        why: Why the file in the job's folder cannot be read.

    Raises:
        UserError: MLflow has no output of the trial.
    """
    text = store.read_text(client, trial.run.info.run_id, output_files.FILE)
    if text is not None:
        return text.encode()
    host = trial.run.data.tags.get("tuner.host") or job.tags.get("tuner.host", "")
    where = f" on {host}" if host else ""
    hint = (
        f"it printed nothing, or the job's folder is elsewhere{where}: look there; MLflow has the output of trials that"
        " failed, and with tracking.output=all that of every trial"
    )
    raise UserError(Problem(f"there is no output of trial {trial.number} of the job {job.id}: {why}", hint=hint))
