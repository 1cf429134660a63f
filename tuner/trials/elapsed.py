"""How long a job took: one definition, for the terminal, the report and the tags of its run.

It is the sum over the job's invocations: the first ``tuner run``, and each one with ``--resume`` or ``--extend``. An
invocation lasts from the beginning of the command until the winner is tested; writing the report and the record, which
contain the duration, does not count. The time between two invocations is a pause.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import overload

from tuner.formatting import duration

_BEGAN, _BEFORE, _SECONDS, _PAUSED = "tuner.began", "tuner.seconds_before", "tuner.seconds", "tuner.paused"
_MAX_SECONDS = 1e11  # more than any time since 1970


@dataclass(frozen=True)
class Elapsed:
    """The time of a running job.

    Args:
        began: When its current invocation began, in seconds since 1970.
        before: Seconds that its earlier invocations took.
        paused: Seconds between its invocations.
    """

    began: float
    before: float = 0.0
    paused: float = 0.0

    def seconds(self) -> float:
        """Return the seconds that the job has run until now."""
        return self.before + max(0.0, time.time() - self.began)

    def tags(self) -> dict[str, str]:
        """Return the tags of a running job's run."""
        values = {_BEGAN: self.began, _BEFORE: self.before, _PAUSED: self.paused}
        return {name: f"{value:.3f}" for name, value in values.items()}


def ended(seconds: float) -> dict[str, str]:
    """Return the tags that the end of a job adds to `Elapsed.tags`, their names without the prefix ``tuner.``.

    Args:
        seconds: How long the job took.
    """
    return {_SECONDS.removeprefix("tuner."): f"{seconds:.3f}"}


def seconds_of(tags: Mapping[str, str], began: float, now: float) -> float:
    """Return the seconds that a job took, or has taken until now.

    Args:
        tags: The tags of its run; those of an older version of tuner lack the times.
        began: When its MLflow run began, in seconds since 1970.
        now: When the job ended, in seconds since 1970; of a running job the current time.
    """
    whole = _number(tags, _SECONDS)
    return _number(tags, _BEFORE, 0.0) + max(0.0, now - _number(tags, _BEGAN, began)) if whole is None else whole


def paused_of(tags: Mapping[str, str]) -> float:
    """Return the seconds between a job's invocations, from the tags of its run."""
    return _number(tags, _PAUSED, 0.0)


@overload
def _number(tags: Mapping[str, str], name: str, otherwise: float) -> float: ...
@overload
def _number(tags: Mapping[str, str], name: str) -> float | None: ...
def _number(tags: Mapping[str, str], name: str, otherwise: float | None = None) -> float | None:
    """Return the value of a tag, or `otherwise` where the tag is missing or not a plausible number."""
    try:
        value = float(tags.get(name, ""))
    except ValueError:
        return otherwise
    return value if 0 <= value <= _MAX_SECONDS else otherwise


FORGOTTEN = (_SECONDS,)
"""Tags that are deleted when a job is resumed."""


def elapsed_text(seconds: float, paused: float = 0.0) -> str:
    """Return how long a job took, and how long it paused if that is a second or more, as text."""
    return duration(seconds) + (f", and {duration(paused)} paused" if round(paused) else "")
