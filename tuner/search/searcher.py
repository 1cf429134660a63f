"""The searcher: suggests the next configuration, and is told its results. It asks a plan or an Optuna study."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tuner.config_keys import Assignment

State = Literal["completed", "pruned", "failed"]
"""How a trial ended, in the sampler's terms."""


@dataclass(frozen=True)
class TrialOutcome:
    """What came of a trial, in the sampler's terms.

    Args:
        assignment: Its configuration.
        state: How it ended.
        values: Its value of each objective; None where it has none.
        steps: The first objective at each step that it reported.
        violations: By how much each measured constraint was missed; above 0 where it was.
        attributes: What the sampler noted on it, from `Searcher.attributes`.
    """

    assignment: Assignment
    state: State
    values: Sequence[float] | None = None
    steps: Mapping[int, float] = field(default_factory=dict)
    violations: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Searcher(ABC):
    """Where configurations come from. Trials are counted from 0 in the order in which they were asked for."""

    total: int
    """How many trials there will be at most."""

    @abstractmethod
    def ask(self) -> Assignment | None:
        """The next configuration; None where there is none left."""

    @abstractmethod
    def ask_again(self, assignment: Assignment) -> None:
        """Count a trial that an earlier run of the job asked for and that goes on."""

    @abstractmethod
    def report(self, number: int, step: int, value: float) -> None:
        """The first objective of a running trial at a step."""

    @abstractmethod
    def tell(self, number: int, told: TrialOutcome) -> None:
        """What came of a trial."""

    @abstractmethod
    def learn(self, told: TrialOutcome, *, counts: bool) -> None:
        """What came of a trial before this run. `counts`: whether it is one of this job's own."""

    def attributes(self, number: int) -> dict[str, Any]:
        """What the sampler noted on a trial, as JSON values."""
        return {}


class Plan(Searcher):
    """A list that is known beforehand."""

    def __init__(self, assignments: Sequence[Assignment]) -> None:
        self._waiting = {repr(assignment): assignment for assignment in assignments}
        """Those that were not asked for yet, in their order."""
        self.total = len(self._waiting)

    def ask(self) -> Assignment | None:
        return self._waiting.pop(next(iter(self._waiting)), None) if self._waiting else None

    def ask_again(self, assignment: Assignment) -> None:
        """The list may have grown since: what was asked for need not be at its beginning."""
        if self._waiting.pop(repr(assignment), None) is None and self._waiting:
            self._waiting.popitem()  # of another version's list: there are to be no more trials for that

    def report(self, number: int, step: int, value: float) -> None:
        """A plan learns nothing from its trials."""

    def tell(self, number: int, told: TrialOutcome) -> None:
        """A plan learns nothing from its trials."""

    def learn(self, told: TrialOutcome, *, counts: bool) -> None:
        if counts:
            self.ask_again(told.assignment)
