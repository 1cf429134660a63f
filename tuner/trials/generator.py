"""The generator of trials: it asks the searcher for configurations, and reports the results to it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tuner.models.imported import without_checks
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
    """Return the trials of a plan, none of which has begun; None if the search is adaptive."""
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
    """Makes trials of the searcher's suggestions. It is the first callback: the others use what it sets on a trial."""

    def __init__(
        self,
        spec: ExperimentSpec,
        past: Sequence[Trial] = (),
        learnt: Sequence[TrialOutcome] = (),
        most: int | None = None,
    ) -> None:
        """Create the generator, and report the trials so far to the searcher.

        Args:
            spec: The experiment.
            past: The trials of earlier invocations of this job, by number; those without an end are resumed.
            learnt: The trials of other jobs that the sampler learns from.
            most: The largest number of trials; None where the search decides.
        """
        self._spec = spec
        self._most = most
        self._searcher: Searcher = spec.searcher(len(past))
        self.trials = list(past)
        """All trials so far, by number."""
        self.unfinished = [trial for trial in past if trial.ended is None]
        """The trials of the past that are resumed, before new ones begin."""
        self._repeats: Counter[str] = Counter()
        for outcome in learnt:
            self._searcher.learn(outcome, is_own=False)
        for trial in past:
            self._repeats[repr(trial.assignment)] += 1
            if trial.ended is None:
                self._searcher.register(trial.assignment)
                for epoch, value in trial.series.items():
                    self._searcher.report(trial.number, epoch, value)
            else:
                self._searcher.learn(self._outcome(trial), is_own=True)

    @property
    def total(self) -> int:
        """The largest number of trials, those of the past included."""
        limits = (self._searcher.total, self._spec.budget.trials, self._most)
        return min(limit for limit in limits if limit is not None)

    def next(self) -> Trial | None:
        """Return the next trial to begin; None if there is none left."""
        if self.unfinished:
            return self.unfinished.pop(0)
        if len(self.trials) >= self.total:
            return None
        with without_checks():  # the control loop must not wait for the user's model: a trial that has none fails
            assignment = self._searcher.ask()
        if assignment is None:
            return None
        config = self._spec.trial_config(assignment, self._repeats[repr(assignment)])
        trial = Trial(len(self.trials), assignment, config, label(assignment))
        self._repeats[repr(assignment)] += 1
        self.trials.append(trial)
        return trial

    def forget_unbegun(self) -> None:
        """Remove the last trials that were generated in advance and had not begun when the job ended."""
        while self.trials and self.trials[-1].started is None and not self.trials[-1].resumed:
            self.trials.pop()

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        """Report an intermediate value to the sampler."""
        value = trial.series.get(trial.epoch)
        if value is not None:
            self._searcher.report(trial.number, trial.epoch, value)

    def trial_ended(self, trial: Trial) -> None:
        """Report the trial's result to the sampler."""
        if trial.best is not None:
            trial.violations = self._spec.constraint_set.violations(trial.config, trial.best_report)
        if trial.status in _STATES:
            self._searcher.tell(trial.number, self._outcome(trial))
            trial.attributes = self._searcher.attributes(trial.number)

    def _outcome(self, trial: Trial) -> TrialOutcome:
        return TrialOutcome(
            assignment=trial.assignment,
            state=_STATES[trial.status],
            values=trial.values(self._spec.objectives),
            steps=dict(trial.series),
            violations=trial.violations,
            attributes=trial.attributes,
        )
