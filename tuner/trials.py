"""What the driver knows of each trial, and the table of them all."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tuner.scoring import Objective
from tuner.space import Assignment, Value
from tuner.trial_config import TrialConfig

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["pending", "running", "completed", "failed", "diverged", "interrupted"]

STATUS, REASON, TRACEBACK = "tuner.status", "tuner.reason", "tuner.traceback"
"""Keys of a trial's last report, where it tells how it ended."""


@dataclass
class Trial:
    """One trial from the driver's side.

    Args:
        number: Its place in the plan, from 0.
        assignment: What it takes for the searched keys.
        config: The trial whole, its seed explicit.
        label: The assignment in a few words, such as ``lr=0.01 momentum=0.9``.
    """

    number: int
    assignment: Assignment
    config: TrialConfig
    label: str
    status: Status = "pending"
    reason: str = ""
    traceback: str = ""
    epoch: int = 0
    """Epochs reported so far."""
    best: float | None = None
    """The objective at its best report."""
    best_report: dict[str, Any] = field(default_factory=dict)
    """All metrics of its best report."""
    checkpoint: str | None = None
    """The checkpoint of its best report: a path, or a URI where storage is one."""
    started: float | None = None
    ended: float | None = None

    @property
    def best_epoch(self) -> int | None:
        """The epoch of its best report, from 1."""
        return self.best_report.get("epoch")

    @property
    def seconds(self) -> float:
        """Wall-clock seconds from its start to its end, or to now."""
        return 0.0 if self.started is None else (self.ended or time.time()) - self.started

    def take(self, report: dict[str, Any], objective: Objective) -> bool:
        """Note an epoch's report. Returns whether it is the best so far."""
        self.epoch = int(report["epoch"])
        value = objective.of(report)
        if value is None or not objective.beats(value, self.best):
            return False
        self.best, self.best_report = value, dict(report)
        return True


class Listener(Protocol):
    """Something that wants to know how a job goes. Called on the control loop: it must not wait for anything."""

    def trial_started(self, trial: Trial) -> None:
        """A trial has begun, or begun again."""

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        """An epoch has been measured; `trial` knows it already."""

    def trial_ended(self, trial: Trial) -> None:
        """A trial has come to its end, good or bad."""


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Each dotted key by as few of its last parts as tell it from the others."""
    keys = list(keys)
    short = {}
    for key in keys:
        parts = key.split(".")
        for count in range(1, len(parts) + 1):
            name = ".".join(parts[-count:])
            if sum(other == name or other.endswith(f".{name}") for other in keys) == 1:
                break
        short[key] = name
    return short


def brief(value: Value) -> str:
    """A value in as few characters as a table has room for."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def label(assignment: Assignment) -> str:
    """An assignment in a few words, such as ``lr=0.01 momentum=0.9``."""
    names = short_names(assignment)
    return " ".join(f"{names[key]}={brief(value)}" for key, value in assignment.items())


def ranked(trials: Sequence[Trial], objective: Objective) -> list[Trial]:
    """The trials with a score, best first; of equals the one planned first. Then those without."""
    scored = [trial for trial in trials if trial.best is not None]
    rest = [trial for trial in trials if trial.best is None]
    return sorted(scored, key=lambda trial: objective.key(trial.best or 0.0)) + rest


def winner(trials: Sequence[Trial], objective: Objective) -> Trial | None:
    """The best trial that neither failed nor diverged; None where there is none.

    One that the job's end interrupted counts with its best report: that was measured, and its checkpoint is there.
    """
    sound = [t for t in trials if t.status in ("completed", "interrupted") and t.checkpoint is not None]
    return ranked(sound, objective)[0] if sound else None


def leaderboard(trials: Sequence[Trial], objective: Objective) -> "pd.DataFrame":
    """One row a trial, best first: number, status, objective, epoch, the searched keys, seconds, reason."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "trial": trial.number,
                "status": trial.status,
                objective.metric: trial.best,
                "best_epoch": trial.best_epoch,
                **trial.assignment,
                "seconds": round(trial.seconds, 1),
                "reason": trial.reason,
            }
            for trial in ranked(trials, objective)
        ]
    )
