"""The objects that a job uses, from its first trial to the end of its record."""

from dataclasses import dataclass

from rich.console import Console

from tuner.jobs.continuation import JobStart
from tuner.ray_backend.cluster import connection, resources
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.report.phases import Phases
from tuner.spec.experiment import ExperimentSpec
from tuner.tracking.record.recorder import Links, Recorder
from tuner.trials.elapsed import Elapsed
from tuner.trials.generator import TrialGenerator
from tuner.trials.trial import Trial


@dataclass(frozen=True)
class JobContext:
    """The objects that a job uses."""

    opening: JobStart
    generator: TrialGenerator
    share: resources.TrialResources
    recorder: Recorder
    links: Links
    console: Console
    elapsed: Elapsed
    phases: Phases
    local: bool
    """Whether this process started Ray for this job alone."""
    user_folder: UserFolder | None
    """Where workers find code of the user's own; None if the experiment has none."""

    @property
    def spec(self) -> ExperimentSpec:
        """The experiment."""
        return self.opening.spec

    @property
    def folder(self) -> str:
        """The job's folder, or its URI."""
        return self.opening.folder

    @property
    def trials(self) -> list[Trial]:
        """All trials so far."""
        return self.generator.trials

    def keep_logs(self, why: str) -> None:
        """Keep Ray's logs of this job after its end, and print where they are.

        Args:
            why: The reason to print.
        """
        if logs := connection.keep_logs():
            self.note(f"{why}: Ray's logs of this job are kept in {logs}")

    def note(self, text: str) -> None:
        """Print a warning."""
        self.console.print(text, style="yellow", soft_wrap=True, highlight=False, markup=False)
