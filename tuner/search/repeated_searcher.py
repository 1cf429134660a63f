"""Repetition of every configuration with several seeds, so that configurations are compared by their means."""

import math
from collections.abc import Sequence
from statistics import mean  # `fmean` raises where a sum is beyond 1e308
from typing import Any

from tuner.config_keys import Assignment
from tuner.search.searcher import Searcher, TrialOutcome


class Repeated(Searcher):
    """Returns each configuration of another searcher several times in a row, and reports their means to it."""

    def __init__(self, searcher: Searcher, times: int) -> None:
        """Wrap a searcher.

        Args:
            searcher: The searcher that suggests configurations. Its trial numbers are numbers of configurations.
            times: Number of trials of each configuration, at least 2.
        """
        self._searcher = searcher
        self._times = times
        self._assignments: list[Assignment] = []
        """The configurations of the trials, by number."""
        self._outcomes: dict[int, list[TrialOutcome]] = {}
        """The outcomes of the trials of each configuration, by its number."""
        self._counted = 0
        """Number of configurations that the wrapped searcher has suggested or learned of."""

    @property
    def total(self) -> int:  # type: ignore[override]
        """The largest number of trials."""
        return self._searcher.total * self._times

    def ask(self) -> Assignment | None:
        self._pass_on()
        if len(self._assignments) % self._times:
            assignment: Assignment | None = self._assignments[-1]
        else:
            assignment = self._searcher.ask()
            self._counted += 1
        if assignment is not None:
            self._assignments.append(assignment)
        return assignment

    def register(self, assignment: Assignment) -> None:
        self._assignments.append(assignment)

    def report(self, number: int, step: int, value: float) -> None:
        """Do nothing: the mean values are reported when all trials of the configuration have ended."""

    def tell(self, number: int, outcome: TrialOutcome) -> None:
        self._pass_on()
        group = number // self._times
        self._outcomes.setdefault(group, []).append(outcome)
        if len(self._outcomes[group]) == self._times:
            merged = _merged(self._outcomes[group])
            for step, value in merged.steps.items():
                self._searcher.report(group, step, value)
            self._searcher.tell(group, merged)

    def learn(self, outcome: TrialOutcome, *, is_own: bool) -> None:
        if not is_own:
            self._searcher.learn(outcome, is_own=False)
            return
        self._outcomes.setdefault(len(self._assignments) // self._times, []).append(outcome)
        self._assignments.append(outcome.assignment)

    def attributes(self, number: int) -> dict[str, Any]:
        group = number // self._times
        return self._searcher.attributes(group) if len(self._outcomes.get(group, ())) == self._times else {}

    def _pass_on(self) -> None:
        """Pass the configurations of a resumed job on to the wrapped searcher, after all their trials are known."""
        while self._counted * self._times < len(self._assignments):
            outcomes = self._outcomes.get(self._counted, [])
            if len(outcomes) == self._times:
                self._searcher.learn(_merged(outcomes), is_own=True)
            else:
                self._searcher.register(self._assignments[self._counted * self._times])
            self._counted += 1


def _merged(outcomes: Sequence[TrialOutcome]) -> TrialOutcome:
    """The outcome of a configuration: the means over its trials that did not fail; the first outcome if all failed."""
    successful = [each for each in outcomes if each.state != "failed"]
    if not successful:
        return outcomes[0]
    values = [each.values for each in successful if each.values is not None]
    steps = sorted({step for each in successful for step in each.steps})
    names = {name for each in successful for name in each.violations}
    return TrialOutcome(
        assignment=outcomes[0].assignment,
        state="completed" if any(each.state == "completed" for each in successful) else "pruned",
        values=[mean(of_objective) for of_objective in zip(*values, strict=True)] if values else None,
        steps={step: mean(each.steps[step] for each in successful if step in each.steps) for step in steps},
        violations={n: _mean_violation([each.violations.get(n, 0.0) for each in successful]) for n in sorted(names)},
        attributes=next((each.attributes for each in reversed(outcomes) if each.attributes), {}),
    )


def _mean_violation(violations: list[float]) -> float:
    """The mean violation of a constraint; infinite if one of them is."""
    return math.inf if math.inf in violations else mean(violations)
