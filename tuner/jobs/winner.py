"""A job's winner: its test, what a person looks at of it, and the model that it gives."""

import base64
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from tuner.error_text import one_line
from tuner.errors import Mistakes, UserError
from tuner.inspection.winner import Look
from tuner.jobs.context import JobContext
from tuner.process.signals import on_signal, stop
from tuner.ray_backend.guards import InternalErrors
from tuner.ray_backend.runner import call_on_cluster
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.ray_backend.worker.winner import look_at, test
from tuner.tracking.record import opening
from tuner.train.checkpoint import Damaged
from tuner.train.evaluation import Evaluation
from tuner.trials.journal import Journal
from tuner.trials.leaderboard import winner
from tuner.trials.stopping import INTERRUPTION, StoppingCriteria
from tuner.user_code import files

T = TypeVar("T")


class Winner:
    """The best trial of a job whose trials have ended, and what is measured of it.

    Args:
        job: The job.
        stopping: The stopping criteria: an interruption ends the test, too.
        journal: The job's journal, which is left open for ``--resume`` if the winner could not be tested.
        internal_errors: The errors of tuner itself so far, to which those of the measurements are added.
    """

    def __init__(
        self, job: JobContext, stopping: StoppingCriteria, journal: Journal, internal_errors: InternalErrors
    ) -> None:
        self._job = job
        self._stopping = stopping
        self._journal = journal
        self._internal_errors = internal_errors
        self.trial = winner(job.trials, job.spec.objectives, job.spec.repeat)
        """The trial; None if no trial has a result."""
        self.tested = Evaluation()
        """What was measured on the test set."""
        self.seen = Look()
        """What a person looks at."""
        self.damage = ""
        """Why its checkpoint cannot be read; empty if it can."""
        self.untested = ""
        """Why it could not be tested; empty if it could, or is not tested."""

    def test(self) -> None:
        """Measure it on the test set; --resume does so if that was interrupted or has failed."""
        if self.trial is None or self._stopping.reason == INTERRUPTION:
            return
        try:
            with on_signal(stop):  # a large test set may take long
                self.tested = self._of_winner(test, Evaluation())
        except KeyboardInterrupt:
            self._stopping.interrupt()
        except Damaged as error:
            self.damage = error.why
        except UserError as error:  # such as a test image that cannot be decoded
            self.untested = f"the winner could not be tested: {_why(error)}; --resume tests it"
        except Exception as error:
            self._internal_errors.note("the test of the winner", error)
            self.untested = self._internal_errors.reason
        if self.untested or self._stopping.reason == INTERRUPTION:
            self._journal.closed(is_finished=False)

    def look(self) -> None:
        """Compute the pictures of the winner, unless it could not be tested, or somebody interrupts that."""
        if self.damage or self.untested or self._stopping.reason == INTERRUPTION:
            return
        try:
            with suppress(KeyboardInterrupt), on_signal(stop):
                self.seen = self._of_winner(look_at, Look())
        except UserError as error:  # such as a file that was deleted since
            self._job.note(f"there are no pictures of the winner: {_why(error)}")
        except Exception as error:  # the answer does not depend on them
            self._internal_errors.note("the pictures of the winner", error, minor=True)

    def _of_winner(self, function: Callable[[str, int, bool, Sequence[str], UserFolder | None], T], nothing: T) -> T:
        """Call a function of the winner's checkpoint; return `nothing` if there is none that tuner can load."""
        best, share = self.trial, self._job.share
        if best is None or best.checkpoint is None or best.config.is_function:
            return nothing
        targets = best.config.targets
        if self._job.local:  # another worker would only import torch again
            return function(best.checkpoint, share.threads * share.slots, share.gpu > 0, targets, None)
        return call_on_cluster(function, best.checkpoint, targets, share, self._job.user_folder)

    def model(self) -> dict[str, Any] | None:
        """Return the model to register: None if the winner's checkpoint cannot be read, or its test has failed."""
        best = self.trial
        is_usable = not (self.damage or self.untested) and opening.registers(self._job.spec)
        if not is_usable or best is None or best.checkpoint is None:
            return None
        try:
            code = files.sources_of(best.config.loading_targets or ())
        except (Mistakes, OSError) as error:  # it was there when the job began
            self._job.note(f"the model is not registered, because its code cannot be read: {one_line(str(error))}")
            return None
        data = best.config.describe_data()
        measured = [o.metric for o in self._job.spec.objectives if o.of(best.best_report) is not None]
        return {
            "name": self._job.spec.name,
            "checkpoint": best.checkpoint,
            "targets": best.config.targets,
            "code": {name: _text(content) for name, content in code.items()},
            "example": _text(self.seen.example),
            "metric": self._job.spec.objective.metric,
            "mode": self._job.spec.objective.mode,
            "value": best.best,
            "dataset": f"{data.name} {data.digest}" if data else "",
            "metrics": [*measured, *self.tested.metrics],
            "epoch": best.best_epoch,
        }


def _text(content: bytes) -> str:
    """Bytes as the journal has them."""
    return base64.b64encode(content).decode("ascii")


def _why(error: UserError) -> str:
    """The mistakes of an error in one line, also of one that comes from a worker."""
    raised: UserError = getattr(error, "cause", error)  # of the error itself, not of Ray's around it
    return one_line(raised.in_a_line)
