"""An earlier run of a job."""

from dataclasses import dataclass, field

from tuner.trials.elapsed import Elapsed
from tuner.trials.events import JobEnd, JobOpened
from tuner.trials.trial import Trial


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
    changed_data: str = ""
    """What a user should know of data that have changed since then; empty if they have not."""

    def elapsed(self, began: float) -> Elapsed:
        """The time of the job, whose next run `began`."""
        return Elapsed(began, self.seconds, self.paused + max(0.0, began - self.ended))
