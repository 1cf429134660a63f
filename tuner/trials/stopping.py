"""When a job ends before its search is through."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from tuner.objectives import Objective
from tuner.signals import on_signal, stop
from tuner.spec.sections import FailAfter
from tuner.trials.callback import TrialCallback
from tuner.trials.trial import Trial

INTERRUPTION = "interrupted"
"""Why a job ended that somebody ended by hand."""

_FIRST = 3  # trials that may all fail before it is not theirs but the experiment's fault


class StoppingCriteria(TrialCallback):
    """Knows when a job has to end, and why. A `TrialCallback`: what ends a job is what its trials report."""

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
        """Say when.

        Args:
            timeout: Seconds from now.
            goals: A trial that is as good as this in one of them ends the job.
            epochs: Epochs over all trials together.
            fail_after: How many trials may fail.
            total: How many trials there are to be.
            past: The trials of an earlier run of the job.
        """
        self._deadline = None if timeout is None else time.time() + timeout
        self._goals = goals or {}
        self._epochs = epochs
        self._fail_after = fail_after
        self._total = total
        self._spent = sum(trial.epoch for trial in past)
        self._ended = [trial.status == "failed" for trial in past if trial.ended is not None]
        self.reason = ""
        """Why the job was ended; empty while it was not."""
        self.is_failure = False
        """Whether that is because it cannot go on."""

    def is_due(self) -> bool:
        """Whether the job has to end now."""
        if not self.reason and self._deadline is not None and time.time() > self._deadline:
            self.reason = "timeout"
        return bool(self.reason)

    def interrupt(self) -> None:
        """Have the job end because somebody wants it to, so that it can go on later."""
        self.reason = INTERRUPTION

    def give_up(self, why: str) -> None:
        """Have the job end because it cannot go on."""
        if not self.reason:
            self.reason, self.is_failure = why, True

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        """Look whether this was good enough, or the last epoch that may be spent."""
        self._spent += 1
        for objective, goal in self._goals.items():
            value = objective.of(report)
            if value is not None and not trial.not_finite and objective.beats(value, goal) and not self.reason:
                self.reason = f"{objective.metric} {value:.6g} reached {goal:g}"
        if self._epochs is not None and self._spent >= self._epochs and not self.reason:
            self.reason = f"the budget of {self._epochs} epochs is spent"

    def trial_ended(self, trial: Trial) -> None:
        """Look whether anything works at all."""
        self._ended.append(trial.status == "failed")
        if len(self._ended) >= _FIRST and all(self._ended):
            self.give_up(f"the first {len(self._ended)} trials all failed, the last of them with {trial.reason}")
        if self._fail_after is not None and trial.status == "failed":
            limit = self._fail_after.reached(sum(self._ended), self._total)
            if limit:
                self.give_up(f"{limit}; the last one failed with {trial.reason}")


@contextmanager
def ended_by_signals(stopping: StoppingCriteria, say: Callable[[str], object], local: bool) -> Iterator[None]:
    """While trials run: the first signal ends them, the second one does not wait for them.

    A machine that is taken away says so with a SIGTERM, SLURM with SIGUSR1 or SIGTERM, a closed terminal with SIGHUP.
    A SIGTERM may have been sent to all processes, also to those of a Ray that was started here: it may be gone, and to
    end trials by way of it would be to wait for a minute.

    Args:
        stopping: Knows why the job ends.
        say: Given a line.
        local: Whether Ray was started here.
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
    """A signal when all trials have ended: what is left to do is what a job is run for, and takes seconds."""

    def __init__(self, say: Callable[[str], object]) -> None:
        """Wait for a first signal.

        Args:
            say: Given a line.
        """
        self._say = say
        self._is_told = False

    def __call__(self, name: str) -> None:
        """Say that it goes on; stop at the second one."""
        if self._is_told:
            stop(name)
        self._is_told = True
        _say(self._say, f"{name}: the trials have ended, the record is being finished; once more to stop at once")


def _say(say: Callable[[str], object], message: str) -> None:
    """Say something from a signal's handler."""
    with suppress(RuntimeError):  # in the middle of another line
        say(message)
