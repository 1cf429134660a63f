"""The events of a trial's journal as what is written to its MLflow run.

Live, after ``--resume`` and by ``tuner sync`` a record is written from the same events, by these rules.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from tuner.objectives import Objective
from tuner.report_keys import BESIDE, COMPILE, GRAPH, SYSTEM
from tuner.storage.filesystem import above
from tuner.storage.uris import masked
from tuner.tracking import names
from tuner.tracking.store import FIXED
from tuner.trials import output_files
from tuner.trials.events import Event, TrialDropped, TrialEnded, TrialMutated, TrialReported, TrialStarted

_MLFLOW_STATUS = {
    "completed": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "diverged": "FAILED",
    "interrupted": "KILLED",
}


class Rules(BaseModel):
    """What of an experiment decides how its events are recorded."""

    objectives: list[Objective]
    searched: list[str]
    """The searched keys: their values are parameters, all others are tags."""
    is_population: bool = False
    """Whether the searched values of a trial change, and are recorded as metrics, too."""
    keeps_all_output: bool = False
    """Whether the output of every trial is recorded, or else that of the failed ones."""

    def is_searched(self, key: str) -> bool:
        """Whether a key of a trial is searched, or belongs to a section of which the kind is searched."""
        return any(key == name or key.startswith(f"{name}.") for name in self.searched)


@dataclass(frozen=True)
class StartRun:
    """A run begins."""

    name: str
    time: float
    """Seconds since 1970, as everywhere here."""
    tags: dict[str, str]
    params: dict[str, str]
    data: dict[str, Any] | None
    """Its dataset, as `tuner.tracking.entities.dataset_inputs` takes it."""


@dataclass(frozen=True)
class ContinueRun:
    """A run that was interrupted continues."""


@dataclass(frozen=True)
class LogMetrics:
    """An epoch was measured."""

    values: dict[str, float]
    step: int
    time: float


@dataclass(frozen=True)
class EndRun:
    """A run ends."""

    status: str
    """MLflow's."""
    metrics: dict[str, float]
    """Its best report."""
    step: int
    tags: dict[str, str]
    texts: dict[str, str]
    """Artifacts, by file."""
    checkpoint: str
    """The best checkpoint; empty where there is none."""
    is_dropped: bool
    """Whether its checkpoints are no longer needed, and may be gone."""
    output: str
    """The file with what it printed; empty where that is not recorded."""
    time: float
    adopts: bool
    """Whether code of the user's own may have begun runs, which belong below it."""


@dataclass(frozen=True)
class DeleteCheckpoints:
    """The checkpoints of a trial are no longer needed once the best one is an artifact."""

    folder: str


Operation = StartRun | ContinueRun | LogMetrics | EndRun | DeleteCheckpoints


@dataclass
class TrialProjection:
    """Turns the events of one trial, in their order, into operations on its run."""

    rules: Rules
    folder: str
    """The job's folder, or its URI."""
    number: int
    _is_started: bool = False
    _is_dropped: bool = False
    _checkpoint: str | None = None
    """The best checkpoint, once the trial has ended."""
    _has_own_code: bool = False
    _assignment: dict[str, Any] = field(default_factory=dict)
    _mutations: list[TrialMutated] = field(default_factory=list)
    _reports: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    def of(self, event: Event) -> list[Operation]:
        """The operations that an event stands for."""
        match event:
            case TrialStarted():
                return [self._start(event)]
            case TrialReported():
                return [self._report(event)]
            case TrialMutated():
                self._mutations.append(event)
                self._assignment = event.after
            case TrialDropped():
                self._is_dropped = True
                return self._delete()
            case TrialEnded():
                return [self._end(event), *self._delete()]
        return []

    def _start(self, event: TrialStarted) -> Operation:
        self._assignment, self._has_own_code = event.assignment, event.has_own_code
        self._checkpoint = None
        if event.epoch == 0:  # it begins as what it has become
            self._mutations = []
        if self._is_started:
            return ContinueRun()
        self._is_started = True
        searched = {key: value for key, value in event.config.items() if self.rules.is_searched(key)}
        fixed = {f"{FIXED}{key}": value for key, value in event.config.items() if key not in searched}
        tags = {"tuner.role": "trial", "tuner.trial": str(self.number), "tuner.seed": str(event.seed)}
        name = names.run_name(f"{self.number:03d} {event.label}".strip())
        return StartRun(name, event.time, fixed | tags, searched, event.data)

    def _report(self, event: TrialReported) -> Operation:
        report: Mapping[str, Any] = event.report
        epoch = event.report["epoch"]
        self._reports[epoch] = report
        values = _numbers(report) | {f"system/{name}": value for name, value in report.get(SYSTEM, {}).items()}
        if self.rules.is_population:
            before = (mutation.before for mutation in self._mutations if mutation.epoch >= epoch)
            values |= _numbers(next(before, self._assignment))
        return LogMetrics(values, epoch, event.time)

    def _end(self, event: TrialEnded) -> Operation:
        self._checkpoint = event.best
        report = self._reports.get(event.best_epoch or 0, {})
        scores = {f"best_{objective.metric}": objective.of(report) for objective in self.rules.objectives}
        best = {name: value for name, value in scores.items() if value is not None}
        if event.best_epoch is not None:
            best["best_epoch"] = float(event.best_epoch)
        missed = [name for name, by in event.violations.items() if by > 0]
        tags = {
            "tuner.status": event.status,
            "tuner.reason": masked(event.reason),
            "tuner.device": str(report.get("device", "")),
            "tuner.precision": str(report.get("precision", "")),
            "tuner.graph": str(report.get(GRAPH, "")),
            "tuner.compile": str(report.get(COMPILE, "")),
            "tuner.beside": str(report.get(BESIDE, "")),
            "tuner.host": event.host,
            "tuner.seconds": "" if event.seconds is None else f"{event.seconds:.3f}",  # else its run has its times
            "tuner.missed": "; ".join(missed),
            "tuner.mutations": str(len(self._mutations) or ""),
            "tuner.lost": str(event.lost or ""),
            "tuner.batch_parts": str(event.micro_batches) if event.micro_batches > 1 else "",
            "tuner.damaged": "; ".join(f"{path}: {why}" for path, why in event.damaged.items()),
        }
        texts = {"traceback.txt": masked(event.traceback)} if event.traceback else {}
        if self._mutations:
            kept = [m.model_dump(include={"epoch", "parent", "before", "after"}) for m in self._mutations]
            texts["mutations.json"] = json.dumps(kept, indent=1)
        keeps_output = self.rules.keeps_all_output or event.status == "failed"
        self._reports = {}
        return EndRun(
            status=_MLFLOW_STATUS[event.status],
            metrics=best,
            step=event.furthest,  # MLflow shows the value of the highest step
            tags=tags,
            texts=texts,
            checkpoint=event.best or "",
            is_dropped=self._is_dropped,
            output=output_files.output_path(self.folder, self.number) if keeps_output and self.folder else "",
            time=event.time,
            adopts=self._has_own_code,
        )

    def _delete(self) -> list[Operation]:
        return [DeleteCheckpoints(above(self._checkpoint))] if self._is_dropped and self._checkpoint else []


def projected(rules: Rules, folder: str, number: int, events: Iterable[Event]) -> list[Operation]:
    """The operations that the events of one trial stand for."""
    projection = TrialProjection(rules, folder, number)
    return [operation for event in events for operation in projection.of(event)]


def names_in(event: Event, rules: Rules) -> list[str]:
    """The names of a user's that an event brings into the record: of metrics, parameters and tags."""
    match event:
        case TrialStarted():
            return [key if rules.is_searched(key) else f"{FIXED}{key}" for key in event.config]
        case TrialReported():
            report: Mapping[str, Any] = event.report
            return [*_numbers(report), *(f"system/{name}" for name in report.get(SYSTEM, ()))]
    return []


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if type(value) in (int, float) and name != "epoch"}
