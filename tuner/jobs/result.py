"""What a job leaves behind, and how it says whether it went well."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tuner.spec.experiment import ExperimentSpec
from tuner.tracking.record.recorder import Links
from tuner.trials.trial import Trial


@dataclass(frozen=True)
class Result:
    """What a job leaves behind.

    Args:
        spec: The experiment as it was run.
        trials: Every trial that was begun, by number.
        winner: The best trial that neither failed nor diverged; None where there is none.
        test: The winner's metrics on the test set, by their full names.
        folder: The job's folder, or its URI.
        links: Where the record is.
        status: Exit status.
        ended_early: Why the job ended before its search was through; empty where it did not.
        seconds: How long the job took, as `tuner.trials.elapsed` has it.
        record_failure: Why the record is not whole; None where it is.
        model: Address of the winner in MLflow's registry; empty where it is not registered.
        damage: Why the winner's checkpoint cannot be read; empty where it can.
        paused: Seconds between the job's runs, where it was resumed or extended.
        phases: How long each phase of this run of it took, by name; those of the end are no part of `seconds`.
        report: The report's file; empty where it is not on this machine.
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
