"""Every configuration several times, with a seed for each: how good it is, and not how lucky it was."""

import math
from collections.abc import Sequence
from statistics import mean  # `fmean` raises where a sum is beyond 1e308
from typing import Any

from tuner.config_keys import Assignment
from tuner.search.searcher import Searcher, TrialOutcome


class Repeated(Searcher):
    """The configurations of another searcher, each so many times in a row; that one hears of their mean."""

    def __init__(self, searcher: Searcher, times: int) -> None:
        """Repeat.

        Args:
            searcher: Where the configurations come from. It counts configurations where this one counts trials.
            times: How often each is trained, at least 2.
        """
        self._searcher = searcher
        self._times = times
        self._assignments: list[Assignment] = []
        """What the trials were asked for, by number."""
        self._told: dict[int, list[TrialOutcome]] = {}
        """What came of the trials of each configuration, by its number."""
        self._counted = 0
        """Configurations that the other searcher counts."""

    @property
    def total(self) -> int:  # type: ignore[override]
        """How many trials there will be at most."""
        return self._searcher.total * self._times

    def ask(self) -> Assignment | None:
        self._count_on()
        if len(self._assignments) % self._times:
            assignment: Assignment | None = self._assignments[-1]
        else:
            assignment = self._searcher.ask()
            self._counted += 1
        if assignment is not None:
            self._assignments.append(assignment)
        return assignment

    def ask_again(self, assignment: Assignment) -> None:
        self._assignments.append(assignment)

    def report(self, number: int, step: int, value: float) -> None:
        """What one seed has come to tells little: the mean of all is reported when they have ended."""

    def tell(self, number: int, told: TrialOutcome) -> None:
        self._count_on()
        group = number // self._times
        self._told.setdefault(group, []).append(told)
        if len(self._told[group]) == self._times:
            merged = _merged(self._told[group])
            for step, value in merged.steps.items():
                self._searcher.report(group, step, value)
            self._searcher.tell(group, merged)

    def learn(self, told: TrialOutcome, *, counts: bool) -> None:
        if not counts:
            self._searcher.learn(told, counts=False)
            return
        self._told.setdefault(len(self._assignments) // self._times, []).append(told)
        self._assignments.append(told.assignment)

    def attributes(self, number: int) -> dict[str, Any]:
        group = number // self._times
        return self._searcher.attributes(group) if len(self._told.get(group, ())) == self._times else {}

    def _count_on(self) -> None:
        """Have the other searcher count what an earlier run of the job has begun, once all of that is known."""
        while self._counted * self._times < len(self._assignments):
            told = self._told.get(self._counted, [])
            if len(told) == self._times:
                self._searcher.learn(_merged(told), counts=True)
            else:
                self._searcher.ask_again(self._assignments[self._counted * self._times])
            self._counted += 1


def _merged(told: Sequence[TrialOutcome]) -> TrialOutcome:
    """What came of a configuration: the means over the seeds that came to something."""
    sound = [each for each in told if each.state != "failed"]
    if not sound:
        return told[0]
    values = [each.values for each in sound if each.values is not None]
    steps = sorted({step for each in sound for step in each.steps})
    names = {name for each in sound for name in each.violations}
    return TrialOutcome(
        assignment=told[0].assignment,
        state="completed" if any(each.state == "completed" for each in sound) else "pruned",
        values=[mean(of_objective) for of_objective in zip(*values, strict=True)] if values else None,
        steps={step: mean(each.steps[step] for each in sound if step in each.steps) for step in steps},
        violations={name: _missed([each.violations.get(name, 0.0) for each in sound]) for name in sorted(names)},
        attributes=next((each.attributes for each in reversed(told) if each.attributes), {}),
    )


def _missed(violations: list[float]) -> float:
    """By how much a constraint is missed on the average: infinitely where it once was."""
    return math.inf if math.inf in violations else mean(violations)
