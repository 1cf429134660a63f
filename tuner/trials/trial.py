"""The state of a trial on the driver."""

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
"""The beginning of the reason of a trial that failed because its worker was lost too often."""


@dataclass(frozen=True)
class Mutation:
    """A trial of a population continued as a mutated copy of another.

    Args:
        epoch: The epoch after which it did.
        parent: The number of the trial that was copied.
        before: The trial's own configuration until then.
        after: Its configuration from then on.
    """

    epoch: int
    parent: int
    before: Assignment
    after: Assignment


@dataclass
class Trial:
    """The state of one trial on the driver.

    Args:
        number: Its number in the order in which trials began, from 0.
        assignment: Its values of the searched keys.
        config: Its complete configuration, with an explicit seed.
        label: The assignment as a short text, such as ``lr=0.01 momentum=0.9``.
    """

    number: int
    assignment: Assignment
    config: AnyTrial
    label: str
    status: Status = "pending"
    reason: str = ""
    traceback: str = ""
    furthest: int = 0
    """The highest epoch that it ever reported, also in an earlier invocation of the job that saved no checkpoint."""
    epoch: int = 0
    """The last epoch reported; of a function of the user's own, the number of reports."""
    best: float | None = None
    """The objective at its best report."""
    ties: bool = False
    """Whether its best report is as good as the best one before it, and no better."""
    best_report: dict[str, Any] = field(default_factory=dict)
    """All metrics of its best report."""
    best_assignment: Assignment = field(default_factory=dict)
    """Its configuration at its best report: a population's trial is mutated as it trains."""
    checkpoint: str | None = None
    """The checkpoint of its best report: a path, or a URI if storage is one."""
    dropped: bool = False
    """Whether its checkpoints were given up because other trials are better."""
    latest: str | None = None
    """The checkpoint from which it resumes if it is interrupted."""
    latest_epoch: int = 0
    """The epoch of the latest checkpoint."""
    resumed: int = 0
    """How often later invocations of the job resumed it."""
    lost: int = 0
    """How often it was resumed in this invocation of the job because its worker was lost."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Checkpoints that could not be read, each with the reason."""
    left_out: dict[str, str] = field(default_factory=dict)
    """The reported values that are no numbers, by name, each with the reason."""
    micro_batches: int = 1
    """The number of micro-batches that each batch is split into."""
    series: dict[int, float] = field(default_factory=dict)
    """The objective by epoch."""
    reported: set[str] = field(default_factory=set)
    """The names of all reported metrics."""
    not_finite: dict[str, str] = field(default_factory=dict)
    """The objectives whose last reported value was NaN or infinite, each with the value and the epoch as text."""
    saves: list[tuple[str, int, str | None]] = field(default_factory=list)
    """From earlier invocations of the job: each checkpoint, its epoch, and the best checkpoint until then."""
    reports: list[tuple[dict[str, Any], float]] = field(default_factory=list)
    """From earlier invocations of the job: each report, and when it came, in seconds since 1970."""
    violations: dict[str, float] = field(default_factory=dict)
    """By how much its best report violates each measured constraint; at most 0 where the constraint holds."""
    mutations: list[Mutation] = field(default_factory=list)
    """Its mutations, if it is a population's trial."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """The sampler's attributes of it."""
    host: str = ""
    """The host that trained it last."""
    updated: float = 0.0
    """When it reported last, in seconds since 1970."""
    spent: float = 0.0
    """Seconds that it ran before it was resumed."""
    started: float | None = None
    ended: float | None = None

    @property
    def best_epoch(self) -> int | None:
        """The epoch of its best report, from 1."""
        return self.best_report.get("epoch")

    @property
    def seconds(self) -> float:
        """Wall-clock seconds that it ran, until its end or now, without those between two invocations of the job."""
        return self.spent + (0.0 if self.started is None else (self.ended or time.time()) - self.started)

    @property
    def is_feasible(self) -> bool:
        """Whether it violates no constraint."""
        return all(violation <= 0 for violation in self.violations.values())

    @property
    def standing(self) -> str:
        """How its last report compares with those before it, for people; empty if an earlier one was better."""
        if self.best_epoch != self.epoch:
            return ""
        return "as good as the best so far" if self.ties else "best so far"

    def values(self, objectives: Sequence[Objective]) -> list[float] | None:
        """Return each objective of its best report; None if one is missing."""
        values = [objective.of(self.best_report) for objective in objectives]
        return None if None in values else [value for value in values if value is not None]

    def take(
        self,
        report: dict[str, Any],
        objective: Objective,
        when: float | None = None,
        others: Sequence[Objective] = (),
    ) -> bool:
        """Update the trial with a report.

        Args:
            report: The metrics, with ``epoch``.
            objective: The objective that selects the best report.
            when: When it came, in seconds since 1970; None for now.
            others: Further objectives: the best report must have finite values of all.

        Returns:
            Whether the report is the best so far.
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
        self.ties = value == self.best
        self.best, self.best_report, self.best_assignment = value, dict(report), dict(self.assignment_at(self.epoch))
        return True

    def assignment_at(self, epoch: int) -> Assignment:
        """Return the configuration with which an epoch was trained; a population's trial is mutated as it trains."""
        return next((m.before for m in self.mutations if m.epoch >= epoch), self.assignment)

    def end(self, status: Status, reason: str, traceback: str = "") -> None:
        """Set the status and the reason with which it ended, and the time."""
        self.status, self.ended = status, time.time()
        self.reason, self.traceback = one_line(reason), truncated(traceback)

    def mutate(self, mutation: Mutation, config: AnyTrial, latest: str | None) -> None:
        """Continue as a mutated copy of another trial, from that trial's `latest` checkpoint."""
        self.mutations.append(mutation)
        self.assignment = mutation.after
        self.config = config
        self.label = label(mutation.after)
        self.latest, self.latest_epoch = latest, mutation.epoch
        self.not_finite = {}  # its values come from the copied trial now
