"""The journal of a job: what happened to its trials, line by line, so that the job can be resumed from it.

It lies in the job's folder. Each event is written at once, and handed to who follows the journal: the writer of the
MLflow record, which is for people.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from io import SEEK_END, FileIO
from pathlib import Path
from typing import Any, TypeVar, cast

from tuner.config_keys import Assignment, flattened
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.filesystem import below, files_at, part_of, read_parts, relative
from tuner.storage.uris import masked
from tuner.train.trial_base import AnyTrial
from tuner.trials.callback import TrialCallback
from tuner.trials.events import (
    Event,
    JobClosed,
    JobEnd,
    JobOpened,
    JobOpening,
    JobRecorded,
    TrialDropped,
    TrialEnded,
    TrialEvent,
    TrialMutated,
    TrialReported,
    TrialSaved,
    TrialStarted,
)
from tuner.trials.labels import label
from tuner.trials.trial import Mutation, Trial

Kind = TypeVar("Kind", bound=Event)

FILE = "journal.jsonl"
"""Its name in the job's folder, and among the artifacts of the job's run."""

_PART = 200_000
"""Bytes of a part in an object store."""


class Journal(TrialCallback):
    """Writes what happens. A `TrialCallback`.

    What cannot be written is kept, and written with what comes next: a disk may be full for a while.
    """

    def __init__(
        self,
        folder: str,
        on_trouble: Callable[[OSError], None] | None = None,
        follow: Callable[[Event], object] = lambda event: None,
    ) -> None:
        """Open the journal of a job, a new one or the one that is there.

        Args:
            folder: The job's folder, or its URI.
            on_trouble: Called with the OSError that kept the journal from being written; it raises the error again
                unless the job can continue. None raises all.
            follow: Called with each event once it is written or kept; with those of a trial whose beginning is kept,
                once that is written.
        """
        self._folder = folder
        self._files, path = files_at(folder)
        self._files.create_dir(path, recursive=True)
        self._path = f"{path}/{FILE}"
        self._is_local = "://" not in folder
        self._on_trouble = on_trouble
        self._follow = follow
        self._waiting: list[TrialEvent] = []
        """Events of trials that begin while nothing can be written: a record must not have them, since `--resume`
        begins other trials under their numbers."""
        self._file: FileIO | None = None
        """Where it is local, the file to which lines are added; open while the job runs."""
        parts = list(read_parts(below(folder, FILE))) if exists(folder) else []
        # Where an earlier run was killed in the middle of a line, the next one must not continue it.
        self._lines = ["\n"] if parts and not parts[-1].endswith(b"\n") else []
        self._part = max(1, len(parts)) if self._is_local else len(parts) + 1
        """Object stores cannot append: there this part is written again, whenever a trial begins or ends. A local job
        that came from an object store continues its last part."""

    def opening(self, token: str) -> None:
        """The job is about to resume: this is written before its record knows of it."""
        self._write(_made(JobOpening, opening=token))
        self._close()

    def opened(self, spec: ExperimentSpec, **more: Any) -> None:
        """The job has begun, or has resumed."""
        self._write(_made(JobOpened, spec=as_plain(spec), **more))

    def closed(self, is_finished: bool) -> None:
        """The job has ended. `is_finished`: its search had come to its end."""
        self._write(_made(JobClosed, finished=is_finished))

    def recorded(self, end: JobEnd) -> None:
        """The record is about to end, and how: `tuner sync` writes what the tracking server does not take now."""
        self._write(recorded_event(end))
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def trial_started(self, trial: Trial) -> None:
        """Write that a trial has begun, and its configuration."""
        self._write(started_event(trial, trial.config, trial.assignment, trial.epoch))

    def trial_reported(self, trial: Trial, report: dict[str, Any]) -> None:
        """Write an epoch's metrics."""
        self._write(_made(TrialReported, trial, report=report, time=trial.updated))

    def trial_saved(self, trial: Trial) -> None:
        """Write where the latest checkpoint is, and the best one."""
        places = {"latest": trial.latest, "best": trial.checkpoint}
        self._write(_made(TrialSaved, trial, epoch=trial.latest_epoch, **places))

    def trial_dropped(self, trial: Trial) -> None:
        """Write that the checkpoints of a trial are no longer needed, before they are deleted."""
        self._write(_made(TrialDropped, trial))

    def trial_mutated(self, trial: Trial, mutation: Mutation) -> None:
        """Write how a population has changed a trial."""
        self._write(_made(TrialMutated, trial, latest=trial.latest, **asdict(mutation)))

    def trial_ended(self, trial: Trial) -> None:
        """Write how a trial ended, and what the sampler noted on it."""
        self._write(ended_event(trial))

    def _write(self, event: Event) -> None:
        self._lines.append(event.placed(partial(relative, folder=self._folder)).line())
        is_written = False
        try:
            if self._is_local:
                self._append()
                is_written = True
            elif not isinstance(event, TrialReported | TrialSaved):  # they travel with the next that is neither
                self._replace()
                is_written = True
        except OSError as error:
            if self._on_trouble is None:
                raise
            self._on_trouble(error)
        finally:
            self._hand_on(event, is_written)

    def _hand_on(self, event: Event, is_written: bool) -> None:
        """Give an event to whoever follows, once the journal has the beginning of its trial."""
        begins = isinstance(event, TrialStarted) and event.epoch == 0
        waiting = {each.trial for each in self._waiting}
        if not is_written and isinstance(event, TrialEvent) and (begins or event.trial in waiting):
            self._waiting.append(event)
            return
        best = {event.end["winner"], *event.end["front"]} if isinstance(event, JobRecorded) else set()
        for each in self._waiting:
            if is_written or each.trial in best:  # the end of the record names the best trials
                self._follow(each)
        if is_written:
            self._waiting.clear()
        self._follow(event)

    def _append(self) -> None:
        if self._file is None:
            self._file = Path(part_of(self._path, self._part)).open("ab", buffering=0)  # noqa: SIM115 - until the job is over
        before = self._file.seek(0, SEEK_END)  # after a cut the position is still beyond it
        whole = "".join(self._lines).encode()
        try:
            written = self._file.write(whole)
            while written < len(whole):  # as much as there was room for: the next write raises why
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


def started_event(trial: Trial, config: AnyTrial, assignment: Assignment, epoch: int) -> TrialStarted:
    """The event that a trial has begun as `config`, which has an `assignment`, with `epoch` epochs behind it."""
    data = config.describe_data()
    return _made(
        TrialStarted,
        trial,
        epoch=epoch,
        assignment=assignment,
        seed=config.seed,
        label=label(assignment),
        config={key: str(value) for key, value in flattened(config.model_dump(exclude_none=True)).items()},
        data=asdict(data) if data is not None else None,
        has_own_code=bool(config.targets),
        time=trial.started or time.time(),
    )


def ended_event(trial: Trial) -> TrialEnded:
    """The event that a trial has ended."""
    return _made(
        TrialEnded,
        trial,
        status=trial.status,
        reason=trial.reason,
        traceback=trial.traceback,
        violations=trial.violations,
        attributes=trial.attributes,
        best=trial.checkpoint,
        best_epoch=trial.best_epoch if trial.best is not None else None,
        furthest=max(trial.epoch, trial.furthest),
        host=trial.host,
        seconds=trial.seconds if trial.spent else None,
        lost=trial.lost,
        micro_batches=trial.micro_batches,
        damaged=trial.damaged,
        time=trial.ended or time.time(),
    )


def recorded_event(end: JobEnd) -> JobRecorded:
    """The event that the record of a job ends."""
    return _made(JobRecorded, end=end)


def history(spec: ExperimentSpec, trial: Trial) -> Iterator[TrialEvent]:
    """The events of a trial of an earlier run of the job, as far as they still hold: as a journal would have them.

    Args:
        spec: The experiment.
        trial: The trial, as `tuner.trials.resume.reading` has read it.
    """
    first = trial.assignment_at(0)
    config = spec.trial_config(first).model_copy(update={"seed": trial.config.seed})
    yield started_event(trial, config, first, 0)
    mutations = list(trial.mutations)
    for report, when in trial.reports:
        while mutations and mutations[0].epoch < report["epoch"]:
            yield _made(TrialMutated, trial, latest=None, **asdict(mutations.pop(0)))
        yield _made(TrialReported, trial, report=report, time=when)
    for mutation in mutations:
        yield _made(TrialMutated, trial, latest=None, **asdict(mutation))
    if trial.dropped:
        yield _made(TrialDropped, trial)
    if trial.ended is not None:
        yield ended_event(trial)


def _made(kind: type[Kind], trial: Trial | None = None, **fields: Any) -> Kind:
    """An event of now, unless `fields` say otherwise. What we write is not validated: the control loop waits for it."""
    of = {"trial": trial.number} if trial is not None else {}
    event = kind.model_fields["event"].default
    return cast(Kind, kind.model_construct(**{"event": event, "time": time.time()} | of | fields))


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
    return text.decode(errors="replace")  # we write ASCII: other lines are reported as damaged
