"""Which checkpoints stay on disk. MLflow has every trial's best one.

Of a trial that runs: the best, the last, and the one before it, should the last be damaged. Of one that has ended: the
best, as long as the trial is among the best.
"""

from collections.abc import Callable, Sequence

from tuner.spec.experiment import ExperimentSpec
from tuner.storage.filesystem import checkpoints_in
from tuner.trials.callback import TrialCallback
from tuner.trials.layout import trial_of
from tuner.trials.leaderboard import front, ranked
from tuner.trials.status import ENDED
from tuner.trials.trial import Trial


class Retention(TrialCallback):
    """Deletes checkpoints that nobody needs. A `TrialCallback`, behind those that write down which are needed."""

    def __init__(
        self,
        spec: ExperimentSpec,
        trials: Sequence[Trial],
        give_up: Callable[[Trial], None],
        delete: Callable[[str], object],
    ) -> None:
        """Keep what ``checkpoints.keep`` says.

        Args:
            spec: The experiment.
            trials: All trials so far; it grows.
            give_up: Called with a trial whose checkpoints are to be deleted once the best one is recorded.
            delete: Has a checkpoint deleted, and does not wait for that: where it is stored may be far away.
        """
        self._spec = spec
        self._trials = trials
        self._give_up = give_up
        self._delete = delete
        self._race: list[Trial] = []
        """Those that may still be among the best: of thousands of trials a few, so that each end is a look at a few."""
        self._entered = 0
        """How many trials have entered the race."""
        self._saved: dict[int, list[str]] = {}
        """The checkpoints of each trial that runs, in their order, as far as they are there."""
        self._named = {save[0] for trial in trials for save in trial.saves}
        """All checkpoints that the journal names."""

    def trial_saved(self, trial: Trial) -> None:
        """Delete what neither is the best nor would be gone on from."""
        self._named.add(trial.latest or "")
        if self._spec.scheduler.mutates or trial.latest is None:
            return  # any may be copied, until the job is over
        saved = self._saved.setdefault(trial.number, [])
        saved.append(trial.latest)
        sound = [path for path in saved if path not in trial.damaged]
        self._thin_out(trial, {trial.checkpoint, *sound[-2:]})

    def trial_ended(self, trial: Trial) -> None:
        """Give up the trials that this one has thrown out."""
        if trial.status in ENDED:
            self._thin_out(trial, {trial.checkpoint or trial.latest})
            self._saved.pop(trial.number, None)
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
            over = [trial for trial in trials if trial.status in ENDED]
            # Until all that a configuration is to be trained for has ended, nobody knows its place.
            out = [trial for trial in over if trial.number not in needed] if len(over) >= repeat else []
            for trial in out:
                if trial.checkpoint is not None and not trial.dropped:
                    self._give_up(trial)
                    trial.dropped = True
            if len(out) < len(trials):  # they stay together: their mean is what counts
                self._race += trials

    def clear_up(self, folder: str) -> None:
        """Delete what the journal has let go and is still in the job's folder.

        That is what a trial has saved and nobody goes on with: a population keeps all of it until the job is over. Once
        a trial has ended for good, it is also what lost processes of it have left beside its best checkpoint. What the
        journal does not know stays: the folder may be a copy, or be older or newer than its journal.
        """
        needed: set[str | None] = set()
        for trial in self._trials:
            if trial.status in ENDED:
                needed.add(trial.checkpoint or trial.latest)
            else:
                needed |= {trial.checkpoint, trial.latest, *self._saved.get(trial.number, ())}
                if not self._spec.scheduler.mutates:  # what an earlier run of the job kept, should the last be damaged
                    needed |= {save[0] for save in trial.saves[-2:]}
        there = checkpoints_in(folder)
        over = {trial.number for trial in self._trials if trial.status in ENDED and _is_in_order(trial, there)}
        for checkpoint in there:
            if checkpoint not in needed and (checkpoint in self._named or trial_of(checkpoint) in over):
                self._delete(checkpoint)

    def _thin_out(self, trial: Trial, needed: set[str | None]) -> None:
        """Delete those checkpoints of a trial, of this run of the job, that are not needed."""
        saved = self._saved.get(trial.number, [])
        for path in [path for path in saved if path not in needed]:
            saved.remove(path)
            self._delete(path)


def _is_in_order(trial: Trial, there: Sequence[str]) -> bool:
    """Whether what is to be kept of a trial is there: else its folder is not what its journal takes it for."""
    kept = trial.checkpoint or trial.latest
    return kept is None or trial.dropped or kept in there
