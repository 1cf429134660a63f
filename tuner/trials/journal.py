"""The journal of a job: what happened to its trials, line by line, so that another run can go on from there.

It lies in the job's folder. MLflow's record is for people and written in batches; this one is written at once.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from io import SEEK_END, FileIO
from pathlib import Path
from typing import Any

from tuner.spec.experiment import ExperimentSpec
from tuner.storage.filesystem import below, files_at, part_of, read_parts, relative, resolved
from tuner.storage.uris import masked
from tuner.trials.callback import TrialCallback
from tuner.trials.trial import Mutation, Trial

FILE = "journal.jsonl"
"""Its name in the job's folder, and among the artifacts of the job's run."""


_PART = 200_000
"""Bytes of a part in an object store."""


class Journal(TrialCallback):
    """Writes down what happens. A `TrialCallback`.

    What cannot be written is kept, and written with what comes next: a disk may be full for a while.
    """

    def __init__(self, folder: str, on_trouble: Callable[[OSError], None] | None = None) -> None:
        """Open the journal of a job, a new one or the one that is there.

        Args:
            folder: The job's folder, or its URI.
            on_trouble: Told of what keeps it from being written, and raises what cannot be lived with; None raises all.
        """
        self._folder = folder
        self._files, path = files_at(folder)
        self._files.create_dir(path, recursive=True)
        self._path = f"{path}/{FILE}"
        self._is_local = "://" not in folder
        self._on_trouble = on_trouble
        self._file: FileIO | None = None
        """Where it is local, the file to which lines are added; open while the job goes on."""
        parts = list(read_parts(below(folder, FILE))) if exists(folder) else []
        # Where an earlier run was killed in the middle of a line, the next one must not go on in it.
        self._lines = ["\n"] if parts and not parts[-1].endswith(b"\n") else []
        self._part = max(1, len(parts)) if self._is_local else len(parts) + 1
        """Object stores cannot append: there this part is written again, whenever a trial begins or ends. A local job
        that came from one goes on in its last."""

    def opening(self, token: str) -> None:
        """The job is about to go on: this is written before its record knows of it."""
        self._write("opening", opening=token)
        self._close()

    def opened(self, spec: ExperimentSpec, **more: Any) -> None:
        """The job has begun, or begun again."""
        self._write("opened", spec=as_plain(spec), **more)

    def closed(self, is_finished: bool) -> None:
        """The job has ended. `is_finished`: its search was through."""
        self._write("closed", finished=is_finished)

    def recorded(self, end: Mapping[str, Any]) -> None:
        """The record is about to end, and how: what the tracking server does not take now can be made up for."""
        self._write("recorded", end=end)
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def trial_started(self, trial: Trial) -> None:
        """Write down that a trial has begun, and its configuration."""
        what = {"assignment": trial.assignment, "seed": trial.config.seed}
        self._write("started", trial=trial.number, epoch=trial.epoch, **what)

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        """Write down an epoch's metrics."""
        self._write("reported", trial=trial.number, report=report, time=trial.updated)

    def trial_saved(self, trial: Trial) -> None:
        """Write down where the latest checkpoint is, and the best one."""
        places = {"latest": trial.latest, "best": trial.checkpoint}
        self._write("saved", trial=trial.number, epoch=trial.latest_epoch, **places)

    def trial_dropped(self, trial: Trial) -> None:
        """Write down that the checkpoints of a trial are let go, before they are deleted."""
        self._write("dropped", trial=trial.number)

    def trial_mutated(self, trial: Trial, mutation: Mutation) -> None:
        """Write down what a population made of a trial."""
        self._write("mutated", trial=trial.number, latest=trial.latest, **asdict(mutation))

    def trial_ended(self, trial: Trial) -> None:
        """Write down how a trial ended, and what the sampler noted on it."""
        self._write(
            "ended",
            trial=trial.number,
            status=trial.status,
            reason=trial.reason,
            traceback=trial.traceback,
            violations=trial.violations,
            attributes=trial.attributes,
            best=trial.checkpoint,
        )

    def _write(self, event: str, **more: Any) -> None:
        line = {"event": event, "time": time.time()} | _with_places(more, partial(relative, folder=self._folder))
        self._lines.append(json.dumps(line, default=str) + "\n")
        if not self._is_local and event in ("reported", "saved"):
            return
        try:
            self._append() if self._is_local else self._replace()
        except OSError as error:
            if self._on_trouble is None:
                raise
            self._on_trouble(error)

    def _append(self) -> None:
        if self._file is None:
            self._file = Path(part_of(self._path, self._part)).open("ab", buffering=0)  # noqa: SIM115 - until the job is over
        before = self._file.seek(0, SEEK_END)  # after a cut the position is still beyond it
        whole = "".join(self._lines).encode()
        try:
            written = self._file.write(whole)
            while written < len(whole):  # as much as there was room for: the rest says why
                written += self._file.write(whole[written:])
        except OSError:
            self._file.truncate(before)  # half a line would spoil the next
            raise
        self._lines.clear()

    def _replace(self) -> None:
        whole = "".join(self._lines).encode()
        with self._files.open_output_stream(part_of(self._path, self._part)) as stream:
            stream.write(whole)
        if len(whole) > _PART:
            self._part += 1
            self._lines.clear()


def placed(event: dict[str, Any], folder: str) -> dict[str, Any]:
    """An event of a journal with its places where the job's folder is now: a journal has them relative to it."""
    return _with_places(event, partial(resolved, folder=folder))


def _with_places(event: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """An event with all files and folders that it names changed."""

    def changed(tree: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
        return {
            key: change(value) if key in keys and isinstance(value, str) and value else value
            for key, value in tree.items()
        }

    event = changed(event, _PLACES)
    if isinstance(end := event.get("end"), Mapping):
        model = end.get("model")
        event["end"] = changed(end, _PLACES) | (
            {"model": changed(model, _PLACES)} if isinstance(model, Mapping) else {}
        )
    return event


_PLACES = ("latest", "best", "checkpoint", "artifacts", "journal")
"""Keys of an event, of the end of a record and of its model whose values are files or folders of the job."""


def as_plain(spec: ExperimentSpec) -> dict[str, Any]:
    """An experiment as a journal has it: without passwords, for it becomes an artifact."""
    tracking = spec.tracking.model_copy(update={"uri": spec.tracking.uri and masked(spec.tracking.uri)})
    shown = spec.model_copy(update={"tracking": tracking, "storage": masked(spec.storage)})
    return shown.model_dump(mode="json", exclude_none=True)


def exists(folder: str) -> bool:
    """Whether there is a journal in a folder, or at the URI of one."""
    from pyarrow.fs import FileType

    files, path = files_at(folder)
    return bool(files.get_file_info(f"{path}/{FILE}").type == FileType.File)


def text_of(folder: str) -> str:
    """The journal in a folder."""
    text = b"".join(read_parts(below(folder, FILE)))
    return text.decode(errors="replace")  # we write ASCII: other lines are told as damaged
