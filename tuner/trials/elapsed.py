"""How long a job took: one definition, for everything that tells of it.

It is the time that the job ran, added over its runs, where it was resumed or extended. A run of it lasts from the
command's beginning until the winner is tested: what comes then writes this down, and cannot be in it. What lies between
two runs of a job is a pause.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import overload

from tuner.formatting import duration

_BEGAN, _BEFORE, _SECONDS, _PAUSED = "tuner.began", "tuner.seconds_before", "tuner.seconds", "tuner.paused"
_MOST = 1e11  # seconds: more than any moment since 1970


@dataclass(frozen=True)
class Elapsed:
    """The time of a job that goes on.

    Args:
        began: When its run that goes on began, in seconds since 1970.
        before: Seconds that its earlier runs took.
        paused: Seconds between its runs.
    """

    began: float
    before: float = 0.0
    paused: float = 0.0

    def seconds(self) -> float:
        """Seconds that the job has run until now."""
        return self.before + max(0.0, time.time() - self.began)

    def tags(self) -> dict[str, str]:
        """What the record says of a job that goes on."""
        said = {_BEGAN: self.began, _BEFORE: self.before, _PAUSED: self.paused}
        return {name: f"{value:.3f}" for name, value in said.items()}


def ended(seconds: float) -> dict[str, str]:
    """What the record says of a job that took so long, beside its `Elapsed.tags`; without the prefix."""
    return {_SECONDS.removeprefix("tuner."): f"{seconds:.3f}"}


def seconds_of(tags: Mapping[str, str], began: float, now: float) -> float:
    """Seconds that a job took, or has taken until now, from the tags of its run.

    Args:
        tags: They may be those of an older version, which did not tell.
        began: When its MLflow run began, in seconds since 1970.
        now: When it ended; where it goes on, the time of day.
    """
    whole = _number(tags, _SECONDS)
    return _number(tags, _BEFORE, 0.0) + max(0.0, now - _number(tags, _BEGAN, began)) if whole is None else whole


def paused_of(tags: Mapping[str, str]) -> float:
    """Seconds between a job's runs, from the tags of its run."""
    return _number(tags, _PAUSED, 0.0)


@overload
def _number(tags: Mapping[str, str], name: str, otherwise: float) -> float: ...
@overload
def _number(tags: Mapping[str, str], name: str) -> float | None: ...
def _number(tags: Mapping[str, str], name: str, otherwise: float | None = None) -> float | None:
    """What a tag says; `otherwise` where it is not there or somebody has edited it."""
    try:
        value = float(tags.get(name, ""))
    except ValueError:
        return otherwise
    return value if 0 <= value <= _MOST else otherwise


FORGOTTEN = (_SECONDS,)
"""Tags that are no longer true when a job goes on."""


def said(seconds: float, paused: float = 0.0) -> str:
    """How long a job took, and how long it lay still between its runs, where that is told of: a second at least."""
    return duration(seconds) + (f", and {duration(paused)} paused" if round(paused) else "")
