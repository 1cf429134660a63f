"""The runs of a job's trials in MLflow: to write the same operation once more changes nothing."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tuner.storage.filesystem import delete_checkpoints
from tuner.tracking import entities, store
from tuner.tracking.record.projection import (
    ContinueRun,
    DeleteCheckpoints,
    EndRun,
    LogMetrics,
    Operation,
    StartRun,
)
from tuner.tracking.record.run_files import RunFiles
from tuner.tracking.record.run_writer import RunWriter
from tuner.tracking.record.runs import Change
from tuner.tracking.user_mlflow import key_of


@dataclass
class TrialRun:
    """What MLflow has of a trial: the one place that knows how far its record is.

    Args:
        id: The run's.
        is_reopened: Whether an earlier run of the job has begun it.
        is_over: Whether it is complete, its checkpoint included.
        steps: Of one that was reopened, the steps at which it has metrics.
        lacks: Of one that was over when it was reopened and is not complete, the metrics that it lacks points of; None
            for a complete one.
        lacks_checkpoint: Whether its checkpoint is no artifact.
    """

    id: str
    is_reopened: bool = False
    is_over: bool = False
    steps: set[int] = field(default_factory=set)
    lacks: frozenset[str] | None = None
    lacks_checkpoint: bool = False


class TrialRuns:
    """The runs below the job's own run."""

    def __init__(self, client: Any, files: RunFiles, writer: RunWriter) -> None:
        """Write with an `MlflowClient`, and with what writes files and rows of runs."""
        self._client = client
        self._files = files
        self._writer = writer
        self._experiment = ""
        self._parent = ""
        self._tags: dict[str, str] = {}
        self._runs: dict[int, TrialRun] = {}

    def below(self, experiment: str, parent: str, tags: dict[str, str]) -> None:
        """Know the experiment, the job's own run (by their ids), and the tags that every run has."""
        self._experiment, self._parent, self._tags = experiment, parent, tags

    def know(self, run: Any, number: int, there: TrialRun) -> None:
        """Take note of the run of a trial that is there, as MLflow gives it."""
        self._runs[number] = there
        self._files.know(run)
        self._writer.know(run)

    def id_of(self, number: int) -> str:
        """The id of a trial's run."""
        return self._runs[number].id

    def write(self, number: int, operations: Sequence[Operation], *, again: bool = False) -> None:
        """Write what happened to a trial, in as few calls as it takes.

        Args:
            number: The trial's.
            operations: In the order of time.
            again: Whether some of it may be there already, after an attempt that was cut off.
        """
        begins = next((each for each in operations if isinstance(each, StartRun)), None)
        if begins is not None:
            self._begin(number, begins, again)
        run = self._runs[number]
        if not run.is_over:
            self._write(number, run, operations)
        elif run.lacks is not None:
            self._complete(number, run, run.lacks, operations)
        for operation in operations:
            if isinstance(operation, DeleteCheckpoints) and run.is_over and self._has_checkpoint(run):
                delete_checkpoints(operation.folder)

    def _begin(self, number: int, begins: StartRun, again: bool) -> None:
        if again and number not in self._runs:
            for run in store.runs_below(self._client, self._experiment, self._parent) or []:
                there = int(run.data.tags["tuner.trial"])
                self._runs.setdefault(there, TrialRun(run.info.run_id))
                self._files.know(run)
        if number not in self._runs:
            tags = self._tags | {"mlflow.parentRunId": self._parent} | begins.tags
            begun = self._writer.begin(self._experiment, begins.name, begins.time, tags)
            self._runs[number] = TrialRun(begun.run)
            self._files.places[begun.run] = begun.artifacts

    def _write(self, number: int, run: TrialRun, operations: Sequence[Operation]) -> None:
        metrics: list[Any] = []
        names: set[str] = set()
        params: dict[str, Any] = {}
        tags: dict[str, str] = {}
        data: dict[str, Any] | None = None
        end: EndRun | None = None
        for operation in operations:
            match operation:
                case StartRun() if not run.is_reopened:
                    params, data = operation.params, operation.data
                    names.update(operation.tags)
                case ContinueRun():
                    self._client.update_run(run.id, "RUNNING")
                case LogMetrics() if operation.step not in run.steps:
                    metrics += entities.metrics(operation.values, operation.time, operation.step)
                    names.update(operation.values)
                case EndRun():
                    metrics += entities.metrics(operation.metrics, operation.time, operation.step)
                    names.update(operation.metrics)
                    tags, end = operation.tags, operation
        if end is not None and end.adopts:
            self.adopt(number, end.status, end.time)
        # What has ended is complete: where there is more than rows to write, its end comes after that.
        is_rows = not data and not (end and (end.texts or end.checkpoint or end.output))
        ended = (end.status, end.time) if end and is_rows else None
        self._writer.add(run.id, f"trial {number}", Change(metrics, params, tags, ended), names)
        if data:
            self._files.datasets(run.id, data, entities.SEEN)
        if end is not None:
            if not is_rows:
                self._end(run.id, end)
            run.is_over = True

    def _end(self, run: str, end: EndRun) -> None:
        """End a run, also where its files cannot be kept."""
        try:
            for file, text in end.texts.items():
                self._client.log_text(run, text, file)
            if end.output:
                self._files.output(run, end.output)
            if end.checkpoint:
                # An earlier run of the job may have deleted one that is no longer needed.
                with contextlib.suppress(FileNotFoundError) if end.is_dropped else contextlib.nullcontext():
                    self._files.checkpoint(run, end.checkpoint)
        finally:
            self._writer.add(run, "a trial", Change(ended=(end.status, end.time)))

    def _complete(self, number: int, run: TrialRun, lacks: frozenset[str], operations: Sequence[Operation]) -> None:
        """Write what a run lacks though it has ended. Its files came before its end, and may be gone."""
        for operation in operations:
            match operation:
                case StartRun():
                    change = Change(params=operation.params, tags=operation.tags)
                    self._writer.add(run.id, f"trial {number}", change, operation.tags)
                case LogMetrics(values, step, when) | EndRun(metrics=values, step=step, time=when):
                    some = {name: value for name, value in values.items() if name in lacks}
                    metrics = entities.metrics(some, when, step)
                    self._writer.add(run.id, f"trial {number}", Change(metrics), some)
                    if isinstance(operation, EndRun) and run.lacks_checkpoint and operation.checkpoint:
                        self._files.checkpoint(run.id, operation.checkpoint)

    def _has_checkpoint(self, run: TrialRun) -> bool:
        """Whether a trial's checkpoint is an artifact still: a folder of artifacts may have been deleted meanwhile."""
        return not run.is_reopened or bool(self._client.list_artifacts(run.id, store.CHECKPOINT))

    def adopt(self, number: int, status: str, when: float) -> None:
        """Put the runs that a trial's own code began below its run, as `tuner.tracking.store.adopt`."""
        key = key_of(self._parent, number)
        store.adopt(self._client, self._experiment, key, self._runs[number].id, status, when)
