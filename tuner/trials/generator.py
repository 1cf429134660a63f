"""The supply of trials: it asks the searcher for configurations, and tells it what came of them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tuner.search.searcher import Searcher, State, TrialOutcome
from tuner.spec.experiment import ExperimentSpec
from tuner.trials.callback import TrialCallback
from tuner.trials.labels import label
from tuner.trials.trial import Trial

_STATES: dict[str, State] = {
    "completed": "completed",
    "pruned": "pruned",
    "failed": "failed",
    "diverged": "failed",
}


def planned(spec: ExperimentSpec) -> list[Trial] | None:
    """The trials of a plan, none of them begun; None where the search is adaptive."""
    plan = spec.plan()
    if plan is None:
        return None
    trials: list[Trial] = []
    seen: Counter[str] = Counter()
    for assignment in (assignment for assignment in plan for _ in range(spec.repeat)):
        config = spec.trial_config(assignment, seen[repr(assignment)])
        seen[repr(assignment)] += 1
        trials.append(Trial(len(trials), assignment, config, label(assignment)))
    return trials


class TrialGenerator(TrialCallback):
    """Makes trials of what the searcher suggests. The first callback of all: others see what it notes."""

    def __init__(
        self,
        spec: ExperimentSpec,
        past: Sequence[Trial] = (),
        learnt: Sequence[TrialOutcome] = (),
        most: int | None = None,
    ) -> None:
        """Open the supply.

        Args:
            spec: The experiment.
            past: The trials of an earlier run of this job, in order: those that ended, and those that go on.
            learnt: What is known from elsewhere, for the sampler to learn from.
            most: How many trials there will be at most; None where the search decides.
        """
        self._spec = spec
        self._most = most
        self._searcher: Searcher = spec.searcher(len(past))
        self.trials = list(past)
        """All trials so far, by number."""
        self.unfinished = [trial for trial in past if trial.ended is None]
        """Those of the past that go on, to be begun first."""
        self._repeats: Counter[str] = Counter()
        for told in learnt:
            self._searcher.learn(told, is_own=False)
        for trial in past:
            self._repeats[repr(trial.assignment)] += 1
            if trial.ended is None:
                self._searcher.register(trial.assignment)
                for epoch, value in trial.series.items():
                    self._searcher.report(trial.number, epoch, value)
            else:
                self._searcher.learn(self._told(trial), is_own=True)

    @property
    def total(self) -> int:
        """How many trials there will be at most, those of the past included."""
        limits = (self._searcher.total, self._spec.budget.trials, self._most)
        return min(limit for limit in limits if limit is not None)

    def next(self) -> Trial | None:
        """The next trial to begin; None where there is none left."""
        if self.unfinished:
            return self.unfinished.pop(0)
        if len(self.trials) >= self.total:
            return None
        assignment = self._searcher.ask()
        if assignment is None:
            return None
        config = self._spec.trial_config(assignment, self._repeats[repr(assignment)])
        trial = Trial(len(self.trials), assignment, config, label(assignment))
        self._repeats[repr(assignment)] += 1
        self.trials.append(trial)
        return trial

    def forget_unbegun(self) -> None:
        """Leave out the last trials where they were made ahead and the job ended before they were begun."""
        while self.trials and self.trials[-1].started is None and not self.trials[-1].resumed:
            self.trials.pop()

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        """Tell the sampler of an intermediate value."""
        value = trial.series.get(trial.epoch)
        if value is not None:
            self._searcher.report(trial.number, trial.epoch, value)

    def trial_ended(self, trial: Trial) -> None:
        """Tell the sampler what came of a trial."""
        if trial.best is not None:
            trial.violations = self._spec.constraint_set.violations(trial.config, trial.best_report)
        if trial.status in _STATES:
            self._searcher.tell(trial.number, self._told(trial))
            trial.attributes = self._searcher.attributes(trial.number)

    def _told(self, trial: Trial) -> TrialOutcome:
        return TrialOutcome(
            assignment=trial.assignment,
            state=_STATES[trial.status],
            values=trial.values(self._spec.objectives),
            steps=dict(trial.series),
            violations=trial.violations,
            attributes=trial.attributes,
        )
