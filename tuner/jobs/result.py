"""The result of a job, and the exit statuses of the commands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tuner.spec.experiment import ExperimentSpec
from tuner.tracking.record.recorder import Links
from tuner.trials.trial import Trial

OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
"""The job is done; it failed (no trial has a result, or too many failed); the user's input is wrong; interrupted."""


@dataclass(frozen=True)
class Result:
    """The result of a job.

    Args:
        spec: The experiment as it was run.
        trials: Every trial that began, by number.
        winner: The best trial that neither failed nor diverged; None if there is none.
        test: The winner's metrics on the test set, by their full names.
        folder: The job's folder, or its URI.
        links: Links to the record.
        status: The exit status: OK, FAILED or INTERRUPTED.
        ended_early: Why the job ended before its search was finished; empty if it did not.
        seconds: How long the job took, as defined in `tuner.trials.elapsed`.
        record_failure: Why the record is incomplete; None if it is complete.
        model: The winner's URI in MLflow's registry; empty if it is not registered.
        damage: Why the winner's checkpoint cannot be read; empty if it can.
        paused: Seconds between the job's invocations, if it was resumed or extended.
        phases: Seconds of each phase of this invocation, by name; `seconds` does not contain the phases after the test.
        report: The report's file; empty if it is not on this host.
    """

    spec: ExperimentSpec
    trials: Sequence[Trial]
    winner: Trial | None
    test: dict[str, float]
    folder: str
    links: Links
    status: int
    ended_early: str
    seconds: float
    record_failure: Exception | None
    model: str = ""
    damage: str = ""
    paused: float = 0.0
    phases: Mapping[str, float] = field(default_factory=dict)
    report: str = ""
