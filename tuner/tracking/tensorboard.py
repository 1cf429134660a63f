"""TensorBoard files, for those who compare curves there: a folder a trial, its metrics, its hyperparameters."""

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

_LONGEST = 200  # bytes of a folder's name, of the 255 that a disk allows
_LINGER = 10.0  # seconds until what a trial reported is in its file: each flush waits for the disk


class TensorBoard(TrialCallback):
    """Writes what trials report. A `TrialCallback`.

    It writes at once: tensorboardX's own `SummaryWriter` leaves that to threads, and waits for ever for one that a full
    disk has ended.
    """

    def __init__(self, folder: str, objectives: tuple[Objective, ...], warn: Callable[[str], None]) -> None:
        """Nothing is written yet.

        Args:
            folder: The job's folder, which is a local one.
            objectives: What each trial's hyperparameters are shown beside.
            warn: Told if its files cannot be written, and that there will be no more of them.
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
        said = {"step": report["epoch"], "wall_time": trial.updated}
        self._write(trial, [{"summary": scalar(name, value)} | said for name, value in numbers.items()])

    def trial_ended(self, trial: Trial) -> None:
        """Write what it was trained with and what came of it; its files are whole then."""
        from tensorboardX.summary import hparams, scalar

        values = {f"best/{o.metric}": o.of(trial.best_report) for o in self._objectives}
        best = {name: value for name, value in values.items() if value is not None}
        searched = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in _of(trial)}
        # Its own `add_hparams` makes another run of each trial.
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
            elif time.monotonic() - self._flushed.get(trial.number, 0.0) > _LINGER:
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
            if trial.resumed:  # what is written again replaces what it had come to
                writer.write_event(Event(step=trial.epoch, session_log=SessionLog(status=SessionLog.START)))
        return self._writers[trial.number]


def _place(label: str) -> str:
    """A label as a folder's name: without folders in it, and no longer than a name may be."""
    name = label.strip().replace("/", "_").replace("\0", "_")
    is_short = len(os.fsencode(name)) <= _LONGEST
    return name if is_short else os.fsencode(name)[:_LONGEST].decode(errors="ignore") + "..."


def _of(trial: Trial) -> list[tuple[str, Any]]:
    return list((trial.best_assignment or trial.assignment).items())
