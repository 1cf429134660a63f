"""TensorBoard's files: a folder for each trial, with its metrics and hyperparameters."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.objectives import Objective
from tuner.trials.callback import TrialCallback
from tuner.trials.trial import Trial

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter

FOLDER = "tensorboard"
"""Name of the folder in that of the job."""

_MAX_NAME = 200  # bytes of a folder's name, of the 255 that file systems allow
_FLUSH_INTERVAL = 10.0  # seconds between flushes, each of which waits for the disk


class TensorBoard(TrialCallback):
    """Writes the metrics of trials to TensorBoard's files.

    It does not use tensorboardX's `SummaryWriter`, which writes in a thread and waits for ever for one that a full disk
    has ended.
    """

    def __init__(self, folder: str, objectives: tuple[Objective, ...], warn: Callable[[str], None]) -> None:
        """Create the callback without writing anything.

        Args:
            folder: The job's folder, which must be local.
            objectives: The objectives that are shown beside each trial's hyperparameters.
            warn: Called with a message when a file cannot be written; after that nothing more is written.
        """
        self._folder = Path(folder, FOLDER)
        self._objectives = objectives
        self._warn = warn
        self._is_over = False
        self._writers: dict[int, EventsWriter] = {}
        self._flushed: dict[int, float] = {}

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        """Write an epoch's metrics."""
        from tensorboardX.summary import scalar

        numbers = {name: value for name, value in report.items() if type(value) in (int, float) and name != "epoch"}
        point = {"step": report["epoch"], "wall_time": trial.updated}
        self._write(trial, [{"summary": scalar(name, value)} | point for name, value in numbers.items()])

    def trial_ended(self, trial: Trial) -> None:
        """Write the trial's hyperparameters and best scores, and close its file."""
        from tensorboardX.summary import hparams, scalar

        values = {f"best/{o.metric}": o.of(trial.best_report) for o in self._objectives}
        best = {name: value for name, value in values.items() if value is not None}
        searched = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in _of(trial)}
        # tensorboardX's `add_hparams` would add a second run for each trial.
        events = [{"summary": summary} for summary in hparams(searched, best)]
        events += [{"summary": scalar(name, value), "step": trial.best_epoch} for name, value in best.items()]
        self._write(trial, [event | {"wall_time": trial.ended} for event in events], is_last=True)

    def _write(self, trial: Trial, events: Sequence[Mapping[str, Any]], *, is_last: bool = False) -> None:
        from tensorboardX.proto.event_pb2 import Event

        if self._is_over:
            return
        try:
            writer = self._writer(trial)
            for event in events:
                writer.write_event(Event(**event))
            if is_last:
                self._writers.pop(trial.number).close()
            elif time.monotonic() - self._flushed.get(trial.number, 0.0) > _FLUSH_INTERVAL:
                self._flushed[trial.number] = time.monotonic()
                writer.flush()
        except OSError as error:
            self._is_over = True
            self._warn(f"TensorBoard's files end here: {error}")

    def _writer(self, trial: Trial) -> "EventsWriter":
        if trial.number not in self._writers:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog

            place = self._folder / _place(f"{trial.number:04d} {trial.label}")
            place.mkdir(parents=True, exist_ok=True)
            writer = self._writers[trial.number] = EventsWriter(str(place / "events"))
            if trial.resumed:  # epochs that are trained again replace those after the checkpoint
                writer.write_event(Event(step=trial.epoch, session_log=SessionLog(status=SessionLog.START)))
        return self._writers[trial.number]


def _place(label: str) -> str:
    """Return a label as a folder's name, without slashes and cut to the length that is allowed."""
    name = label.strip().replace("/", "_").replace("\0", "_")
    is_short = len(os.fsencode(name)) <= _MAX_NAME
    return name if is_short else os.fsencode(name)[:_MAX_NAME].decode(errors="ignore") + "..."


def _of(trial: Trial) -> list[tuple[str, Any]]:
    return list((trial.best_assignment or trial.assignment).items())
