"""What a recorded trial printed, from its job's folder or from the record, also while it prints."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from tuner.errors import Problem, UserError
from tuner.tracking import store
from tuner.tracking.queries import RecordedJob, RecordedTrial, trials_of
from tuner.trials import output_files

_LOOK = 0.5  # seconds between looks at a file that grows
_ASK = 2.0  # seconds between questions whether its trial has ended


def output_of(client: Any, job: RecordedJob, number: int, *, follow: bool = False) -> Iterator[bytes]:
    """What a trial printed, piece by piece.

    Args:
        client: Of MLflow's store.
        job: The trial's job.
        number: Of the trial.
        follow: Whether to wait for more until the trial ends.

    Raises:
        UserError: There is no such trial, or what it printed cannot be had from here.
    """
    trial = _trial(client, job, number)
    file = output_files.place(job.tags.get("tuner.folder", ""), number)
    try:
        printed = output_files.read(file)
    except Exception as error:  # whatever a storage that is away raises
        yield _artifact(client, job, trial, f"{file} cannot be read: {error}")
        return
    if printed is None and not (follow and _goes_on(client, trial)):
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
        there = f"it has trials {numbers[0]} to {numbers[-1]}" if numbers else "none of its trials has begun"
        raise UserError(Problem(f"the job {job.id} of {job.experiment} has no trial {number}", hint=there))
    return found


def _growing(client: Any, trial: RecordedTrial, file: str, seen: int) -> Iterator[bytes]:
    """What is added to a file until its trial has ended."""
    asked = time.monotonic()
    is_over = False
    while not is_over:
        time.sleep(_LOOK)
        if time.monotonic() - asked > _ASK:
            is_over, asked = not _goes_on(client, trial), time.monotonic()
        with contextlib.suppress(OSError):  # a storage may be away for a while
            now = output_files.read(file) or b""
            # Where it is shorter than before, its middle was cut out: it goes on from its end.
            yield now[seen:]
            seen = len(now)


def _goes_on(client: Any, trial: RecordedTrial) -> bool:
    run = store.run_of(client, trial.run.info.run_id)
    return run is not None and run.info.status == "RUNNING"


def _artifact(client: Any, job: RecordedJob, trial: RecordedTrial, why: str) -> bytes:
    """What the record has of a trial's output.

    Raises:
        UserError: It has none.
    """
    text = store.read_text(client, trial.run.info.run_id, output_files.FILE)
    if text is not None:
        return text.encode()
    which = f"trial {trial.number} of the job {job.id}"
    host = trial.run.data.tags.get("tuner.host") or job.tags.get("tuner.host", "")
    where = f" on {host}" if host else ""
    hint = (
        f"it printed nothing, or the job's folder is elsewhere{where}: look there; in the record is the output of"
        " trials that failed, and with tracking.output=all that of every one"
    )
    raise UserError(Problem(f"there is nothing that {which} printed: {why}", hint=hint))
