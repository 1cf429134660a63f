"""Whether a job may continue a record: it may belong to another folder, or have more than the journal."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tuner.tracking.health import refusal
from tuner.tracking.record.messages import JournalState
from tuner.trials.resume.stored_jobs import shares_record
from tuner.trials.status import ENDED

OPENING = "tuner.opening"
"""Tag of a job's run: which opening of the job has written it last."""


class Refused(Exception):
    """MLflow refuses a record. Carries the message, the key of the specification, and a hint."""

    def __init__(self, message: str, key: str, hint: str = "") -> None:
        self.message, self.key, self.hint = message, key, hint
        super().__init__(message)


def check(run: Any, trials: Sequence[Any], journal: JournalState) -> None:
    """Make sure that a job can go on with its record.

    Args:
        run: The job's own run.
        trials: The runs of its trials.
        journal: What its journal has.

    Raises:
        Refused: It cannot.
    """
    _check_is_no_copy(run.data.tags, journal)
    _check_is_not_ahead(run, trials, journal)


def _check_is_no_copy(tags: Mapping[str, str], journal: JournalState) -> None:
    """Two folders of one job are not to write to the same runs: only one of them would know what is in them.

    Raises:
        Refused: The other one has continued the record, or has it as well.
    """
    folder, token = tags.get("tuner.folder", ""), tags.get(OPENING, "")
    gone_on = bool(token) and token not in (journal.token, *journal.known)
    if gone_on or shares_record(journal.folder, folder, journal.job, journal.store):
        what = "and has gone on there" if gone_on else "and this one is a copy"
        raise Refused(
            f"its runs belong to the job in {folder} on {tags.get('tuner.host', 'another machine')}, {what}",
            "--resume",
            "go on with it there, or add --adopt: then it goes on here as a job of its own, with runs of its own",
        )


def _check_is_not_ahead(run: Any, trials: Sequence[Any], journal: JournalState) -> None:
    """Completing a record must not take anything from it: the journal may be older, as one from a backup.

    Raises:
        Refused: The record has more than the journal.
    """
    if not journal.only_completes:
        return  # its trials resume from what the journal has
    begun, unfinished = journal.begun, journal.unfinished
    numbers = sorted((int(each.data.tags["tuner.trial"]), is_over(each)) for each in trials)
    ahead = [f"trial {number}" for number, is_over in numbers if number >= begun or (is_over and number in unfinished)]
    if run.info.status == "FINISHED" and not journal.is_ended:
        ahead.append("the job")
    if ahead:
        more = f" and {len(ahead) - 5} more" if len(ahead) > 5 else ""
        raise Refused(
            f"the record has more than the job's journal, of {', '.join(ahead[:5])}{more}: the journal is older, as "
            "one from a backup, and nothing was written",
            "tuner sync",
            f"put the newer journal back, which the run {run.info.run_id} may have as an artifact; or tuner run FILE "
            "--resume goes on from what this one tells",
        )


def is_over(run: Any) -> bool:
    """Whether the run of a trial was written to its end."""
    return run.info.end_time is not None and run.data.tags.get("tuner.status") in ENDED


@contextlib.contextmanager
def refusing(uri: str) -> Iterator[None]:
    """Errors of the store as ones of whoever named it."""
    try:
        yield
    except Exception as error:
        why = refusal(error, uri)
        if why is None:
            raise
        raise Refused(f"MLflow refuses the record: {why[0]}", "tracking.uri", why[1]) from None
