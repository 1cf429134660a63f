"""Whether the data are still those on which the earlier trials of a job were trained."""

from collections.abc import Iterable

from pydantic import ValidationError

from tuner.spec.experiment import ExperimentSpec
from tuner.trials.events import Event, TrialStarted

_SHOWN = 5
"""Most trials that the note names."""


def changed_data(spec: ExperimentSpec, events: Iterable[Event]) -> str:
    """Say which trials were trained on data that are not the same any more; empty if there are none.

    Args:
        spec: The experiment, with its data as they are now.
        events: The journal of the job.
    """
    is_same: dict[str, bool] = {}  # by digest: many trials share their data
    trials: dict[int, None] = {}
    for event in events:
        digest = (event.data or {}).get("digest") if isinstance(event, TrialStarted) else None
        if not isinstance(event, TrialStarted) or not isinstance(digest, str) or not digest:
            continue
        if digest not in is_same:
            is_same[digest] = _digest_now(spec, event) in ("", digest)
        if not is_same[digest]:
            trials[event.trial] = None
    if not trials:
        return ""
    names = ", ".join(map(str, list(trials)[:_SHOWN]))
    more = f" and {len(trials) - _SHOWN} more" if len(trials) > _SHOWN else ""
    return (
        f"the data have changed since trial {names}{more} of this job began: its sets may be others now, so that "
        "numbers cannot be compared, and a trial may be measured on images that it has learnt; a new job, without "
        "--resume and --extend, trains all on the same data"
    )


def _digest_now(spec: ExperimentSpec, started: TrialStarted) -> str:
    """The digest of the data that a trial would have now; empty where nobody knows it."""
    try:
        data = spec.trial_config(started.assignment).describe_data()
    except ValidationError:  # they are not fit for this trial any more
        return "unfit"
    return data.digest if data is not None else ""
