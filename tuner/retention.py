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
        self._race: list[Trial] = []
        """Those that may still be among the best: of thousands of trials a few, so that each end is a look at a few."""
        self._entered = 0
        """How many trials have entered the race."""

    def trial_ended(self, trial: Trial) -> None:
        """Give up the trials that this one has thrown out."""
        # A population copies the checkpoints of its best, and what is on a Pareto front takes all to be compared:
        # that is for the end.
        if len(self._spec.objectives) == 1 and not self._spec.scheduler.mutates:
            self.look()

    def look(self) -> None:
        """Give up all trials that are not among the best."""
        keep, objectives, repeat = self._spec.checkpoints.keep, self._spec.objectives, self._spec.repeat
        if keep == "all":
            return
        self._race += self._trials[self._entered :]
        self._entered = len(self._trials)
        best = ranked(self._race, objectives, repeat)[: int(keep)]
        needed = {trial.number for trial in (*best, *front(self._race, objectives))}
        same: dict[str, list[Trial]] = {}
        for trial in self._race:
            same.setdefault(repr(trial.assignment), []).append(trial)
        self._race = []
        for trials in same.values():
            over = [trial for trial in trials if trial.status in _OVER]
            # Until all that a configuration is to be trained for has ended, nobody knows its place.
            out = [trial for trial in over if trial.number not in needed] if len(over) >= repeat else []
            for trial in out:
                if trial.checkpoint is not None and trial.number not in self._given_up:
                    self._given_up.add(trial.number)
                    self._give_up(trial)
            if len(out) < len(trials):  # they stay together: their mean is what counts
                self._race += trials
