"""Which checkpoints stay in the job's folder. MLflow has every trial's best one.

Of a running trial: the best, the last, and the one before it, in case the last is damaged. Of a trial that has ended:
the best, if the trial is among the best.
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
    """Deletes checkpoints that are not needed. It comes after the callbacks that record which are needed."""

    def __init__(
        self,
        spec: ExperimentSpec,
        trials: Sequence[Trial],
        give_up: Callable[[Trial], None],
        delete: Callable[[str], object],
    ) -> None:
        """Create the callback.

        Args:
            spec: The experiment; ``checkpoints.keep`` says how many trials keep their checkpoints.
            trials: All trials so far, a list that grows.
            give_up: Called with a trial whose checkpoints are to be deleted once the best one is recorded.
            delete: Called with a checkpoint to delete; must not wait for a remote storage.
        """
        self._spec = spec
        self._trials = trials
        self._give_up = give_up
        self._delete = delete
        self._contenders: list[Trial] = []
        """The trials that may still be among the best: few of thousands, so that ranking them is cheap."""
        self._considered = 0
        """How many trials have become contenders so far."""
        self._saved: dict[int, list[str]] = {}
        """The existing checkpoints of each running trial, oldest first."""
        self._named = {save[0] for trial in trials for save in trial.saves}
        """All checkpoints that the journal names."""

    def trial_saved(self, trial: Trial) -> None:
        """Delete the trial's checkpoints that are neither the best nor among the last two."""
        self._named.add(trial.latest or "")
        if self._spec.scheduler.mutates or trial.latest is None:
            return  # the population may copy any of them until the job ends
        saved = self._saved.setdefault(trial.number, [])
        saved.append(trial.latest)
        readable = [path for path in saved if path not in trial.damaged]
        self._thin_out(trial, {trial.checkpoint, *readable[-2:]})

    def trial_ended(self, trial: Trial) -> None:
        """Give up the trials that are not among the best any more."""
        if trial.status in ENDED:
            self._thin_out(trial, {trial.checkpoint or trial.latest})
            self._saved.pop(trial.number, None)
        # A population copies the checkpoints of its best, and a Pareto front depends on all trials: these are given up
        # at the end of the job.
        if len(self._spec.objectives) == 1 and not self._spec.scheduler.mutates:
            self.give_up_worse()

    def give_up_worse(self) -> None:
        """Give up all trials that are not among the best."""
        keep, objectives, repeat = self._spec.checkpoints.keep, self._spec.objectives, self._spec.repeat
        if keep == "all":
            return
        self._contenders += self._trials[self._considered :]
        self._considered = len(self._trials)
        best = ranked(self._contenders, objectives, repeat)[: int(keep)]
        needed = {trial.number for trial in (*best, *front(self._contenders, objectives))}
        by_configuration: dict[str, list[Trial]] = {}
        for trial in self._contenders:
            by_configuration.setdefault(repr(trial.assignment), []).append(trial)
        self._contenders = []
        for trials in by_configuration.values():
            ended = [trial for trial in trials if trial.status in ENDED]
            # A configuration has a rank only when all its repeats have ended.
            worse = [trial for trial in ended if trial.number not in needed] if len(ended) >= repeat else []
            for trial in worse:
                if trial.checkpoint is not None and not trial.dropped:
                    self._give_up(trial)
                    trial.dropped = True
            if len(worse) < len(trials):  # keep all of them: the rank depends on their mean
                self._contenders += trials

    def clear_up(self, folder: str) -> None:
        """Delete the checkpoints in the job's folder that the journal names and that are not needed any more.

        A population keeps all of its checkpoints until the job ends. Of a trial that has ended, lost workers may also
        have left checkpoints that the journal does not name. Others that it does not name stay: the folder may be a
        copy, or be older or newer than its journal.

        Args:
            folder: The job's folder, or its URI.
        """
        needed: set[str | None] = set()
        for trial in self._trials:
            if trial.status in ENDED:
                needed.add(trial.checkpoint or trial.latest)
            else:
                needed |= {trial.checkpoint, trial.latest, *self._saved.get(trial.number, ())}
                if not self._spec.scheduler.mutates:  # an earlier invocation kept two, in case the last is damaged
                    needed |= {save[0] for save in trial.saves[-2:]}
        existing = checkpoints_in(folder)
        ended = {trial.number for trial in self._trials if trial.status in ENDED and _matches_journal(trial, existing)}
        for checkpoint in existing:
            if checkpoint not in needed and (checkpoint in self._named or trial_of(checkpoint) in ended):
                self._delete(checkpoint)

    def _thin_out(self, trial: Trial, needed: set[str | None]) -> None:
        """Delete those checkpoints of a trial that this invocation of the job saved and that are not needed."""
        saved = self._saved.get(trial.number, [])
        for path in [path for path in saved if path not in needed]:
            saved.remove(path)
            self._delete(path)


def _matches_journal(trial: Trial, existing: Sequence[str]) -> bool:
    """Return whether the checkpoint to keep exists: else the folder does not match its journal."""
    kept = trial.checkpoint or trial.latest
    return kept is None or trial.dropped or kept in existing
