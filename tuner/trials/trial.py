"""What the driver knows of each trial, and the table of them all."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tuner.config_keys import Assignment
from tuner.error_text import one_line, truncated
from tuner.objectives import Objective
from tuner.train.trial_base import AnyTrial
from tuner.trials.labels import label
from tuner.trials.status import Status

WORKER_LOST = "the worker was lost"
"""How the reason of a trial begins whose worker was lost for good."""


@dataclass(frozen=True)
class Mutation:
    """A trial of a population that went on as a changed copy of another.

    Args:
        epoch: Epochs that both had behind them.
        parent: Number of the trial that was copied.
        before: The trial's own configuration until then.
        after: Its configuration from then on.
    """

    epoch: int
    parent: int
    before: Assignment
    after: Assignment


@dataclass
class Trial:
    """One trial from the driver's side.

    Args:
        number: Its place in the order in which trials were begun, from 0.
        assignment: What it takes for the searched keys.
        config: The trial whole, its seed explicit.
        label: The assignment in a few words, such as ``lr=0.01 momentum=0.9``.
    """

    number: int
    assignment: Assignment
    config: AnyTrial
    label: str
    status: Status = "pending"
    reason: str = ""
    traceback: str = ""
    furthest: int = 0
    """The most epochs that it has ever reported, also by an earlier run that it did not go on from."""
    epoch: int = 0
    """Epochs reported so far; of a function of the user's own, reports."""
    best: float | None = None
    """The objective at its best report."""
    best_report: dict[str, Any] = field(default_factory=dict)
    """All metrics of its best report."""
    best_assignment: Assignment = field(default_factory=dict)
    """Its configuration at its best report: that of a population's trial changes."""
    checkpoint: str | None = None
    """The checkpoint of its best report: a path, or a URI where storage is one."""
    dropped: bool = False
    """Whether its checkpoints were let go: others are better."""
    latest: str | None = None
    """The checkpoint that it goes on from if it is interrupted."""
    latest_epoch: int = 0
    """Epochs that the latest checkpoint has behind it."""
    resumed: int = 0
    """How often it was begun again by another run of the job."""
    lost: int = 0
    """How often its process was lost in this run of the job, and it went on."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Checkpoints that it could not go on from, and what is wrong with each."""
    left_out: dict[str, str] = field(default_factory=dict)
    """What it reported and is no number, by name, each with why."""
    micro_batches: int = 1
    """How many micro-batches it computes each batch in."""
    series: dict[int, float] = field(default_factory=dict)
    """The objective at each epoch."""
    reported: set[str] = field(default_factory=set)
    """Names of all that it reported."""
    not_finite: dict[str, str] = field(default_factory=dict)
    """The objectives that were NaN or infinite when they were reported last, each with the value and the epoch."""
    saves: list[tuple[str, int, str | None]] = field(default_factory=list)
    """Of an earlier run of the job: each checkpoint, its epoch, and the best one until then."""
    reports: list[tuple[dict[str, Any], float]] = field(default_factory=list)
    """What an earlier run of the job was told of it, and when."""
    violations: dict[str, float] = field(default_factory=dict)
    """By how much its best report misses each measured constraint; above 0 where it does."""
    mutations: list[Mutation] = field(default_factory=list)
    """What a population made of it."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """What the sampler noted on it."""
    host: str = ""
    """Where it was trained last."""
    updated: float = 0.0
    """When it reported last, in seconds since 1970."""
    spent: float = 0.0
    """Seconds that it ran before it was begun again."""
    started: float | None = None
    ended: float | None = None

    @property
    def best_epoch(self) -> int | None:
        """The epoch of its best report, from 1."""
        return self.best_report.get("epoch")

    @property
    def seconds(self) -> float:
        """Wall-clock seconds that it ran, until its end or now; not those between two runs of the job."""
        return self.spent + (0.0 if self.started is None else (self.ended or time.time()) - self.started)

    @property
    def is_feasible(self) -> bool:
        """Whether it misses no constraint."""
        return all(missed <= 0 for missed in self.violations.values())

    def values(self, objectives: Sequence[Objective]) -> list[float] | None:
        """Each objective at its best report; None where there is none."""
        values = [objective.of(self.best_report) for objective in objectives]
        return None if None in values else [value for value in values if value is not None]

    def take(
        self,
        report: dict[str, Any],
        objective: Objective,
        when: float | None = None,
        others: Sequence[Objective] = (),
    ) -> bool:
        """Note an epoch's report.

        Args:
            report: Its metrics.
            objective: What tells the best report.
            when: Seconds since 1970; None for now.
            others: Further objectives: a report counts only where each of all is there, and finite.

        Returns:
            Whether it is the best so far.
        """
        self.epoch = int(report["epoch"])
        self.furthest = max(self.furthest, self.epoch)
        self.updated = time.time() if when is None else when
        self.reported |= report.keys()
        for each in (objective, *others):
            if (wrong := each.not_finite(report)) is not None:
                self.not_finite[each.metric] = f"{each.metric} was {wrong} in epoch {self.epoch}"
            elif each.of(report) is not None:
                self.not_finite.pop(each.metric, None)
        value = objective.of(report)
        if value is None:
            return False
        self.series[self.epoch] = value
        if any(other.of(report) is None for other in others) or not objective.beats(value, self.best):
            return False
        self.best, self.best_report, self.best_assignment = value, dict(report), dict(self.assignment_at(self.epoch))
        return True

    def assignment_at(self, epoch: int) -> Assignment:
        """The configuration that an epoch was trained with: that of a population's trial changes."""
        return next((m.before for m in self.mutations if m.epoch >= epoch), self.assignment)

    def end(self, status: Status, reason: str, traceback: str = "") -> None:
        """Note how it ended."""
        self.status, self.ended = status, time.time()
        self.reason, self.traceback = one_line(reason), truncated(traceback)

    def mutate(self, mutation: Mutation, config: AnyTrial, latest: str | None) -> None:
        """Go on as a changed copy of another trial, from that one's `latest` checkpoint."""
        self.mutations.append(mutation)
        self.assignment = mutation.after
        self.config = config
        self.label = label(mutation.after)
        self.latest, self.latest_epoch = latest, mutation.epoch
        self.not_finite = {}  # the other one's reports are its own now
