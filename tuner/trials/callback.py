"""TrialCallback: who is told of what happens to trials."""

from typing import Any

from tuner.trials.trial import Mutation, Trial


class TrialCallback:
    """Something that wants to know how a job goes. Called on the control loop: it must not wait for anything."""

    def trial_started(self, trial: Trial) -> None:
        """A trial has begun, or begun again."""

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        """An epoch has been measured; `trial` knows it already."""

    def trial_saved(self, trial: Trial) -> None:
        """A checkpoint of the latest report is there; `trial` knows it already."""

    def trial_mutated(self, trial: Trial, mutation: Mutation) -> None:
        """A trial goes on as a changed copy of another; `trial` knows it already."""

    def trial_lost(self, trial: Trial, why: str) -> None:
        """A trial's process is gone; it goes on from its latest checkpoint, and reports what comes after that."""

    def trial_changed_course(self, trial: Trial, how: str) -> None:
        """A trial goes on in another way than it was to: from an earlier checkpoint, or with batches in parts."""

    def trial_noted(self, trial: Trial, what: str) -> None:
        """There is something about a trial's reports that their author should know."""

    def trial_ended(self, trial: Trial) -> None:
        """A trial has come to its end, good or bad."""
