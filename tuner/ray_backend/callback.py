"""The callback of Ray Tune: it updates the driver's trials and calls each `TrialCallback`."""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.train.constants import CHECKPOINT_DIR_NAME
from ray.tune.result import AUTO_RESULT_KEYS

from tuner.error_text import summary_of, traceback_of
from tuner.formatting import listed
from tuner.process.out_of_memory import OUT_OF_MEMORY, killed_for_memory
from tuner.ray_backend.worker.session import Lost, hung
from tuner.report_keys import (
    BESIDE,
    COMPILE,
    DAMAGED,
    GRAPH,
    LEFT_OUT,
    MICRO_BATCHES,
    REASON,
    STATUS,
    SYSTEM,
    TIME,
    TRACEBACK,
)
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.disk_full import FULL, is_full
from tuner.storage.filesystem import with_scheme_of
from tuner.trials.callback import TrialCallback
from tuner.trials.reported_metrics import ReportedMetrics
from tuner.trials.stopping import INTERRUPTION, StoppingCriteria
from tuner.trials.trial import WORKER_LOST, Trial

_OF_RAY = {*AUTO_RESULT_KEYS, "done", "trial_id", "experiment_tag", "should_checkpoint", "date", "config"}
_OURS = ("epoch", "device", "precision")
_WHERE_THERE_IS = (SYSTEM, MICRO_BATCHES, GRAPH, COMPILE, BESIDE)


class TuneCallback(tune.Callback):  # type: ignore[misc]
    """Updates the driver's trials from Ray Tune's callbacks, and calls each `TrialCallback`."""

    def __init__(
        self,
        by_id: dict[str, Trial],
        spec: ExperimentSpec,
        storage: str,
        stopping: StoppingCriteria,
        listeners: Sequence[TrialCallback],
        after_report: Callable[[], None],
        *,
        watches: bool = True,
    ) -> None:
        """Create the callback.

        Args:
            by_id: The driver's trial by the id of Ray's trial.
            spec: The experiment.
            storage: The job's storage, a folder or a URI: Ray's paths lack the URI's scheme and host.
            stopping: The job's stopping criteria.
            listeners: The callbacks to call.
            after_report: Called after the callbacks of each report.
            watches: Whether it ends trials that hang; else their workers do.
        """
        self._by_id = by_id
        self._spec = spec
        self._listeners = listeners
        self._stopping = stopping
        self._storage = storage
        self._after_report = after_report
        self._last_is_best: dict[int, bool] = {}
        self._outcome: dict[int, dict[str, str]] = {}
        self._epoch: dict[int, int] = {}
        """The epoch of each trial's last report, also of a repeated one."""
        self._coming: dict[int, tuple[Any, str]] = {}
        """Ray's trial and the name of a complete checkpoint whose `on_checkpoint` Ray has not called yet, by number."""
        self._known: dict[int, int] = {}
        """The epoch until which a trial that went back to a checkpoint has reported already, by number."""
        self._last_seen: dict[str, tuple[Any, float]] = {}
        """Ray's running trials by id, and when each last reported; only with a timeout."""
        self._timeout = spec.trial_timeout if watches else None
        self._hung: set[int] = set()
        self._names = ReportedMetrics(spec, listeners)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._note_seen(trial)
        self._begin_to(self._by_id[trial.trial_id])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        ours = self._by_id[trial.trial_id]
        self._note_seen(trial)
        ours.host = str(result.get("hostname", ""))  # the last report, too, tells it: of a trial that fails at once
        if DAMAGED in result:
            self._gone_back(ours, result)
        if LEFT_OUT in result:
            self._names.note_left_out(ours, result[LEFT_OUT])
        if STATUS in result:
            self._outcome[ours.number] = result
            return
        report = _report(ours, result)
        self._note_micro_batches(ours, report)
        self._names.check_names(ours, set(report))
        self._names.check_epoch(ours, result.get("epoch"), report["epoch"])
        self._epoch[ours.number] = report["epoch"]
        if result.get(CHECKPOINT_DIR_NAME):
            self._coming[ours.number] = trial, result[CHECKPOINT_DIR_NAME]
        if report["epoch"] <= self._known.get(ours.number, 0):  # the same numbers again: callbacks get them once
            self._last_is_best[ours.number] = report["epoch"] == ours.best_epoch
            return
        self._last_is_best[ours.number] = ours.take(report, self._spec.objective, others=self._spec.objectives[1:])
        if self._last_is_best[ours.number]:
            ours.checkpoint = None  # set by `_saved`: a function of the user's own need not save each report
        for listener in self._listeners:
            listener.trial_reported(ours, report)
        self._after_report()

    def fail_report(self, trial: Any, error: Exception) -> None:
        """Note that a trial fails because processing its report raised; Ray ends it after that."""
        ours = self._by_id[trial.trial_id]
        why = f"its report could not be processed: {summary_of(error)}"
        self._outcome[ours.number] = {STATUS: "failed", REASON: why, TRACEBACK: traceback_of(error)}

    def _note_micro_batches(self, trial: Trial, report: Mapping[str, Any]) -> None:
        """Note that a trial ran out of memory and splits its batches: its reports have the number of micro-batches."""
        micro_batches = report.get(MICRO_BATCHES, 1) if trial.config.metrics is not None else 1
        if micro_batches > trial.micro_batches:
            trial.micro_batches = micro_batches
            for listener in self._listeners:
                listener.trial_changed_course(
                    trial, f"{OUT_OF_MEMORY}: it splits each batch into {micro_batches} micro-batches"
                )

    def _gone_back(self, trial: Trial, result: Mapping[str, Any]) -> None:
        """Note the checkpoints that a resumed trial could not read, from its first report."""
        self._known[trial.number] = max(trial.epoch, self._known.get(trial.number, 0))
        damaged = {path: str(why) for path, why in result[DAMAGED].items()}
        trial.damaged |= {with_scheme_of(self._storage, path): why for path, why in damaged.items()}
        names = ", ".join("/".join(path.rsplit("/", 2)[-2:]) for path in damaged)
        from_where = f"epoch {result['epoch'] - 1}" if result.get("epoch", 1) > 1 else "the beginning"
        how = f"{names} cannot be read: it resumes from {from_where} · {'; '.join(dict.fromkeys(damaged.values()))}"
        for listener in self._listeners:
            listener.trial_changed_course(trial, how)

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        # Ray calls this right after the report that came with the checkpoint.
        self._saved(self._by_id[trial.trial_id], with_scheme_of(self._storage, checkpoint.path))

    def _saved(self, ours: Trial, path: str) -> None:
        self._coming.pop(ours.number, None)
        if self._last_is_best.get(ours.number):
            ours.checkpoint = path
        if not (ours.mutations and ours.mutations[-1].epoch >= ours.epoch):  # else it resumes from its parent's
            ours.latest, ours.latest_epoch = path, self._epoch.get(ours.number, ours.epoch)
        for listener in self._listeners:
            listener.trial_saved(ours)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Note the checkpoints that were complete when the job ended: Ray calls `on_checkpoint` for none of them."""
        for trial, name in list(self._coming.values()):
            ours = self._by_id[trial.trial_id]
            if ours.ended is None:
                self._saved(ours, with_scheme_of(self._storage, f"{trial.storage.trial_fs_path}/{name}"))

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """End the workers of trials that hang."""
        for trial, seen in list(self._last_seen.values()):
            actor = trial.temporary_state.ray_actor  # None while a population's trial waits for the others
            if actor is not None and time.monotonic() - seen > (self._timeout or 0.0):
                del self._last_seen[trial.trial_id]
                self._hung.add(self._by_id[trial.trial_id].number)
                trial.max_failures = 0  # it would hang again
                ray.kill(actor)

    def _note_seen(self, trial: Any) -> None:
        if self._timeout is not None:
            self._last_seen[trial.trial_id] = trial, time.monotonic()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self._by_id[trial.trial_id]
        self._last_seen.pop(trial.trial_id, None)
        outcome = self._outcome.pop(ours.number, None)
        if outcome is not None:
            status, reason = outcome[STATUS], outcome.get(REASON, "")
            if status == "interrupted":
                self._no_room(ours)
        elif (longest := self._longest(ours)) is not None and ours.epoch >= longest:
            status, reason = "completed", ""
        elif self._stopping.reason:
            status, reason = "interrupted", self._stopping.reason
        else:
            status, reason = "pruned", f"{self._spec.scheduler.kind} after epoch {ours.epoch}"
        never = self._names.missing(ours)
        if status == "completed" and never:
            status, reason = "failed", never
        elif status in ("completed", "pruned") and ours.not_finite:
            status, reason = "diverged", "; ".join(ours.not_finite.values())
        elif status == "completed" and ours.best is None:
            names = listed(repr(objective.metric) for objective in self._spec.objectives)
            status, reason = "failed", f"never reported {names} together"
        self._end(ours, status, reason, (outcome or {}).get(TRACEBACK, ""))
        _forget_statistics(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self._by_id[trial.trial_id]
        self._last_seen.pop(trial.trial_id, None)
        error = _error(trial)
        self._begin_to(ours)  # its worker may be lost before Ray calls `on_trial_start`
        if self._stopping.reason == INTERRUPTION:  # the signal may have ended the workers, too
            self._end(ours, "interrupted", "")
        elif ours.number in self._hung:
            self._end(ours, "failed", hung(self._timeout or 0.0))
        elif is_full(error):
            self._no_room(ours)
            self._end(ours, "interrupted", FULL)
        elif killed_for_memory(error):
            self._end(ours, "failed", OUT_OF_MEMORY)
        else:
            self._end(ours, "failed", f"{WORKER_LOST}: {_last_line(error)}")
        _forget_statistics(trial)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self._by_id[trial.trial_id]
        self._outcome.pop(ours.number, None)
        self._coming.pop(ours.number, None)  # it resumes from the last checkpoint that Ray knows
        self._last_seen.pop(trial.trial_id, None)  # until it starts again
        self._known[ours.number] = ours.epoch
        # A worker that lost the connection may still run and write its current checkpoint before it ends: the resumed
        # trial writes to folders with other numbers.
        trial.storage.current_checkpoint_index += 1
        ours.lost += 1
        for listener in self._listeners:
            listener.trial_lost(ours, _last_line(_error(trial)))

    def _no_room(self, trial: Trial) -> None:
        """End the job: the disk of the trial's host or of the storage is full, and other trials would fail, too."""
        where = f" for trial {trial.number}{f' on {trial.host}' if trial.host else ''}"
        self._stopping.give_up(f"{FULL}{where}; make room, and --resume continues the job")

    def _longest(self, trial: Trial) -> int | None:
        """Return the reports of a trial that does not end early; of a function, the scheduler's ``longest``."""
        length = trial.config.length
        return getattr(self._spec.scheduler, "longest", None) if length is None else length

    def _begin_to(self, last: Trial) -> None:
        """Mark all trials up to one as begun: workers start in any order, and the journal must have no gap."""
        # Pending trials are the last ones, since trials begin in the order in which they were suggested.
        pending = takewhile(lambda ours: ours.status == "pending", reversed(self._by_id.values()))
        for trial in reversed([ours for ours in pending if ours.number <= last.number]):
            trial.status = "running"
            trial.started = trial.started or time.time()
            for listener in self._listeners:
                listener.trial_started(trial)

    def _end(self, trial: Trial, status: Any, reason: str, traceback: str = "") -> None:
        trial.end(status, reason, traceback)
        for listener in self._listeners:
            listener.trial_ended(trial)


def _forget_statistics(trial: Any) -> None:
    """Delete Ray's statistics on each metric of an ended trial: 2 KB each, which adds up over thousands of trials."""
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()


def _error(trial: Any) -> str:
    """Return the text of a Ray trial's error."""
    return str(trial.get_error() or (Path(trial.error_file).read_text() if trial.error_file else ""))


def _last_line(error: str) -> str:
    if killed_for_memory(error):
        return OUT_OF_MEMORY  # Ray's last line is about its settings
    lines = [line for line in error.splitlines() if line.strip()]
    last = lines[-1].partition(" Worker exit type: ")[0] if lines else "Ray gave no reason"
    return last.removeprefix(f"{Lost.__module__}.{Lost.__name__}: ")


def _report(trial: Trial, result: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics of a report: those of the trial's task, or all numbers of a function of the user's own."""
    if trial.config.metrics is not None:
        optional = (*trial.config.costly_metrics, *_WHERE_THERE_IS)
        named = (*trial.config.metrics, *_OURS, *optional)
        return {name: result[name] for name in named if name in result or name not in optional}
    # The worker (`plain_report`) has removed all but numbers, Ray's keys and tuner's keys.
    numbers = {name: value for name, value in result.items() if name not in _OF_RAY and type(value) in (int, float)}
    return numbers | {"epoch": int(result[TIME])}
