"""TensorBoard files, for those who compare curves there: a folder a trial, its metrics, its hyperparameters."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.scoring import Objective
from tuner.trials import Listener, Trial

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

FOLDER = "tensorboard"
"""Name of the folder in that of the job."""


class TensorBoard(Listener):
    """Writes what trials report. A `Listener`: a thread for each running trial does the writing."""

    def __init__(self, folder: str, objectives: tuple[Objective, ...]) -> None:
        """Nothing is written yet.

        Args:
            folder: The job's folder, which is a local one.
            objectives: What each trial's hyperparameters are shown beside.
        """
        self._folder = Path(folder, FOLDER)
        self._objectives = objectives
        self._writers: dict[int, SummaryWriter] = {}

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        """Write an epoch's metrics."""
        writer = self._writer(trial)
        for name, value in report.items():
            if type(value) in (int, float) and name != "epoch":
                writer.add_scalar(name, value, report["epoch"], walltime=trial.updated)

    def trial_ended(self, trial: Trial) -> None:
        """Write what it was trained with and what came of it; its files are whole then."""
        from tensorboardX.summary import hparams

        writer = self._writer(trial)
        values = {f"best/{o.metric}": o.of(trial.best_report) for o in self._objectives}
        best = {name: value for name, value in values.items() if value is not None}
        searched = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in _of(trial)}
        for summary in hparams(searched, best):  # its own `add_hparams` makes another run of each trial
            writer.file_writer.add_summary(summary)
        for name, value in best.items():
            writer.add_scalar(name, value, trial.best_epoch)
        writer.close()
        del self._writers[trial.number]

    def _writer(self, trial: Trial) -> "SummaryWriter":
        if trial.number not in self._writers:
            from tensorboardX import SummaryWriter

            # Of a trial that goes on, what is written again replaces what it had come to.
            began = trial.epoch if trial.resumed else None
            place = self._folder / f"{trial.number:04d} {trial.label}".strip().replace("/", "_")
            self._writers[trial.number] = SummaryWriter(str(place), purge_step=began)
        return self._writers[trial.number]


def _of(trial: Trial) -> list[tuple[str, Any]]:
    return list((trial.best_assignment or trial.assignment).items())
