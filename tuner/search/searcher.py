"""The interface of searchers, which suggest configurations and learn from outcomes, and the searcher for plans."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tuner.config_keys import Assignment

State = Literal["completed", "pruned", "failed"]
"""How a trial ended, in the sampler's terms."""


@dataclass(frozen=True)
class TrialOutcome:
    """The outcome of a trial, as samplers need it.

    Args:
        assignment: The configuration.
        state: How the trial ended.
        values: The value of each objective; None if there is none.
        steps: The value of the first objective at each reported step.
        violations: The violation of each measured constraint: above 0 if the trial violates it.
        attributes: Attributes that the sampler stored for the trial, from `Searcher.attributes`.
    """

    assignment: Assignment
    state: State
    values: Sequence[float] | None = None
    steps: Mapping[int, float] = field(default_factory=dict)
    violations: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Searcher(ABC):
    """Suggests configurations. Trials are numbered from 0 in the order of `ask`, `register` and own `learn` calls."""

    total: int
    """The largest number of trials."""

    @abstractmethod
    def ask(self) -> Assignment | None:
        """Suggest the configuration of the next trial; None if there is none left."""

    @abstractmethod
    def register(self, assignment: Assignment) -> None:
        """Add a trial that the job asked for before it was resumed and that continues."""

    @abstractmethod
    def report(self, number: int, step: int, value: float) -> None:
        """Report the first objective of a running trial at a step."""

    @abstractmethod
    def tell(self, number: int, outcome: TrialOutcome) -> None:
        """Report the outcome of a trial."""

    @abstractmethod
    def learn(self, outcome: TrialOutcome, *, is_own: bool) -> None:
        """Add a finished trial.

        Args:
            outcome: The outcome of the trial.
            is_own: Whether the trial belongs to this job, before it was resumed, and not to a warm start.
        """

    def attributes(self, number: int) -> dict[str, Any]:
        """Attributes that the sampler stored for a trial, as JSON values."""
        return {}


class Plan(Searcher):
    """A searcher that returns the configurations of a plan."""

    def __init__(self, assignments: Sequence[Assignment]) -> None:
        self._waiting = {repr(assignment): assignment for assignment in assignments}
        """The configurations that are not used yet, in order."""
        self.total = len(self._waiting)

    def ask(self) -> Assignment | None:
        return self._waiting.pop(next(iter(self._waiting)), None) if self._waiting else None

    def register(self, assignment: Assignment) -> None:
        """Remove a configuration from the plan, wherever it is: the plan may have been extended since."""
        if self._waiting.pop(repr(assignment), None) is None and self._waiting:
            self._waiting.popitem()  # it is of another version's plan: remove one, so that the total stays the same

    def report(self, number: int, step: int, value: float) -> None:
        """Do nothing."""

    def tell(self, number: int, outcome: TrialOutcome) -> None:
        """Do nothing."""

    def learn(self, outcome: TrialOutcome, *, is_own: bool) -> None:
        if is_own:
            self.register(outcome.assignment)
