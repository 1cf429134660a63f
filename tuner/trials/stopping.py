"""The stopping criteria: when a job ends before its search is finished."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from tuner.formatting import counted
from tuner.objectives import Objective
from tuner.process.signals import on_signal, stop
from tuner.spec.sections import FailAfter
from tuner.trials.callback import TrialCallback
from tuner.trials.trial import Trial

INTERRUPTION = "interrupted"
"""The reason of a job that a signal ended."""

_FIRST = 3  # if so many first trials all fail, the experiment is at fault


class StoppingCriteria(TrialCallback):
    """Decides from the trials' reports and the time whether a job has to end, and why."""

    def __init__(
        self,
        *,
        timeout: float | None = None,
        goals: Mapping[Objective, float] | None = None,
        epochs: int | None = None,
        fail_after: FailAfter | None = None,
        total: int = 0,
        past: Sequence[Trial] = (),
    ) -> None:
        """Create the criteria.

        Args:
            timeout: Seconds from now; None for no limit.
            goals: A trial that reaches the value of one of these objectives ends the job.
            epochs: The budget of epochs over all trials; None for no limit.
            fail_after: How many trials may fail; None for no limit.
            total: The number of trials that the job plans.
            past: The trials of earlier invocations of the job.
        """
        self._deadline = None if timeout is None else time.time() + timeout
        self._goals = goals or {}
        self._epochs = epochs
        self._fail_after = fail_after
        self._total = total
        self._spent = sum(trial.epoch for trial in past)
        self._ended = [trial.status == "failed" for trial in past if trial.ended is not None]
        self.reason = ""
        """Why the job has to end; empty while it has not."""
        self.is_failure = False
        """Whether the job ends as failed."""

    def is_due(self) -> bool:
        """Return whether the job has to end now."""
        if not self.reason and self._deadline is not None and time.time() > self._deadline:
            self.reason = "timeout"
        return bool(self.reason)

    def interrupt(self) -> None:
        """End the job as interrupted, so that it can be resumed."""
        self.reason = INTERRUPTION

    def give_up(self, why: str) -> None:
        """End the job as failed, unless it ends for another reason already."""
        if not self.reason:
            self.reason, self.is_failure = why, True

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        """Check the goals and the budget of epochs."""
        self._spent += 1
        for objective, goal in self._goals.items():
            value = objective.of(report)
            if value is not None and not trial.not_finite and objective.beats(value, goal) and not self.reason:
                self.reason = f"{objective.metric} {value:.6g} reached {goal:g}"
        if self._epochs is not None and self._spent >= self._epochs and not self.reason:
            self.reason = f"the budget of {counted(self._epochs, 'epoch')} is spent"

    def trial_ended(self, trial: Trial) -> None:
        """Check whether the first trials all failed, and whether too many trials failed."""
        self._ended.append(trial.status == "failed")
        if len(self._ended) >= _FIRST and all(self._ended):
            self.give_up(f"the first {len(self._ended)} trials all failed, the last of them with {trial.reason}")
        if self._fail_after is not None and trial.status == "failed":
            limit = self._fail_after.reached(sum(self._ended), self._total)
            if limit:
                self.give_up(f"{limit}; the last one failed with {trial.reason}")


@contextmanager
def ended_by_signals(stopping: StoppingCriteria, say: Callable[[str], object], local: bool) -> Iterator[None]:
    """End the job on signals while trials run: the first one ends the trials, the second one does not wait for them.

    A spot instance that is reclaimed gets SIGTERM, a job of SLURM SIGUSR1 or SIGTERM, a closed terminal sends SIGHUP. A
    SIGTERM may also have been sent to the processes of a Ray that this process started: then Ray may have ended, and
    ending trials by way of Ray would wait for a minute.

    Args:
        stopping: The job's stopping criteria.
        say: Called with each message for the user.
        local: Whether this process started Ray.
    """

    def interrupt(name: str) -> None:
        if stopping.reason == INTERRUPTION:
            stop(name)
        stopping.interrupt()
        _say(say, f"interrupted ({name}): ending the running trials; once more to stop at once")
        if local and name == "SIGTERM":
            stop(name)

    try:
        with on_signal(interrupt):
            yield
    except KeyboardInterrupt:
        stopping.interrupt()


class LateSignal:
    """Handles signals after all trials have ended, while the record is completed, which takes seconds.

    Args:
        say: Called with a message for the user at the first signal.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._has_warned = False

    def __call__(self, name: str) -> None:
        """Print at the first signal that the job finishes; stop at the second one."""
        if self._has_warned:
            stop(name)
        self._has_warned = True
        _say(self._say, f"{name}: the trials have ended, the record is being finished; once more to stop at once")


def _say(say: Callable[[str], object], message: str) -> None:
    """Print a message from a signal handler."""
    with suppress(RuntimeError):  # the signal interrupted another write to the same stream
        say(message)
