"""TrialCallback: the base class of what follows the trials of a job."""

from typing import Any

from tuner.trials.trial import Mutation, Trial


class TrialCallback:
    """Follows the trials of a job. The control loop calls the methods: they must not wait for anything.

    `trial` has been updated before each call.
    """

    def trial_started(self, trial: Trial) -> None:
        """Called when a trial begins or resumes."""

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        """Called with the metrics of each report, once an epoch."""

    def trial_saved(self, trial: Trial) -> None:
        """Called when the checkpoint of the latest report is complete."""

    def trial_mutated(self, trial: Trial, mutation: Mutation) -> None:
        """Called when a trial of a population continues as a mutated copy of another."""

    def trial_lost(self, trial: Trial, why: str) -> None:
        """Called when a trial's worker is lost and the trial will resume from its latest checkpoint."""

    def trial_changed_course(self, trial: Trial, how: str) -> None:
        """Called when a trial continues from an earlier checkpoint than its last, or with more micro-batches."""

    def trial_noted(self, trial: Trial, what: str) -> None:
        """Called with a warning about a trial's reports."""

    def trial_ended(self, trial: Trial) -> None:
        """Called when a trial has ended, with any status."""
