"""Which checkpoints stay on disk: those of the best trials. MLflow has every trial's best one."""

from collections.abc import Callable, Sequence

from tuner.spec import ExperimentSpec
from tuner.trials import Listener, Trial, front, ranked

_OVER = ("completed", "pruned", "failed", "diverged")
"""How a trial ended that no ``--resume`` goes on with."""


class Retention(Listener):
    """Gives up the checkpoints of trials that are out of the race. A `Listener`, behind the one that records them."""

    def __init__(self, spec: ExperimentSpec, trials: Sequence[Trial], give_up: Callable[[Trial], None]) -> None:
        """Keep what ``checkpoints.keep`` says.

        Args:
            spec: The experiment.
            trials: All trials so far; it grows.
            give_up: Has the files of a trial deleted once they are recorded, and not before.
        """
        self._spec = spec
        self._trials = trials
        self._give_up = give_up
        self._given_up: set[int] = set()

    def trial_ended(self, trial: Trial) -> None:
        """Give up the trials that this one has thrown out."""
        # A population copies the checkpoints of its best, and what is on a Pareto front takes all to be compared:
        # that is for the end.
        if len(self._spec.objectives) == 1 and not self._spec.scheduler.mutates:
            self.look()

    def look(self) -> None:
        """Give up all trials that are not among the best."""
        keep = self._spec.checkpoints.keep
        if keep == "all":
            return
        best = ranked(self._trials, self._spec.objectives, self._spec.repeat)[: int(keep)]
        needed = {trial.number for trial in (*best, *front(self._trials, self._spec.objectives))}
        for trial in self._trials:
            is_out = trial.number not in needed | self._given_up and trial.status in _OVER
            if is_out and trial.checkpoint is not None and self._is_judged(trial):
                self._given_up.add(trial.number)
                self._give_up(trial)

    def _is_judged(self, trial: Trial) -> bool:
        """Whether all that its configuration is to be trained for has ended: until then nobody knows its place."""
        same = [other for other in self._trials if other.assignment == trial.assignment]
        return self._spec.repeat == 1 or sum(other.status in _OVER for other in same) >= self._spec.repeat
