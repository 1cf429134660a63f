"""What Ray Tune tells of its trials, in the terms of ours."""

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
from tuner.formatting import duration
from tuner.report_keys import DAMAGED, LEFT_OUT, MICRO_BATCHES, REASON, STATUS, SYSTEM, TIME, TRACEBACK
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.disk_full import FULL, is_full
from tuner.storage.filesystem import with_scheme_of
from tuner.train.out_of_memory import OUT_OF_MEMORY, killed_for_memory
from tuner.trials.callback import TrialCallback
from tuner.trials.reported_metrics import ReportedMetrics
from tuner.trials.stopping import INTERRUPTION, StoppingCriteria
from tuner.trials.trial import WORKER_LOST, Trial

_OF_RAY = {*AUTO_RESULT_KEYS, "done", "trial_id", "experiment_tag", "should_checkpoint", "date", "config"}
_OURS = ("epoch", "device", "precision")
_WHERE_THERE_IS = (SYSTEM, MICRO_BATCHES)


class TuneCallback(tune.Callback):  # type: ignore[misc]
    """Turns Ray Tune's callbacks into what our listeners understand, and keeps our trials up to date."""

    def __init__(
        self,
        by_id: dict[str, Trial],
        spec: ExperimentSpec,
        storage: str,
        stopping: StoppingCriteria,
        listeners: Sequence[TrialCallback],
        after_report: Callable[[], None],
    ) -> None:
        """Listen to Ray.

        Args:
            by_id: Our trial by Ray's id of it.
            spec: The experiment.
            storage: Where the job's files are: of a URI, Ray's paths are but a part.
            stopping: Why the job ends early, if it does.
            listeners: Told of everything that happens.
            after_report: Called when they have been told of a report.
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
        """Epoch of the last report of each trial, told or not."""
        self._coming: dict[int, tuple[Any, str]] = {}
        """Names of checkpoints that are whole, as their reports say, and of which Ray has not told; and whose it is."""
        self._known: dict[int, int] = {}
        """Of trials that have gone back to a checkpoint, the epoch until which they have reported already."""
        self._heard: dict[str, tuple[Any, float]] = {}
        """Ray's trials that run, by their id, and when we heard of each last; kept where one may hang."""
        self._hung: set[int] = set()
        self._names = ReportedMetrics(spec, listeners)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._hear(trial)
        self._begin_to(self._by_id[trial.trial_id])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        ours = self._by_id[trial.trial_id]
        self._hear(trial)
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
        if report["epoch"] <= self._known.get(ours.number, 0):  # the same numbers again: they are told once
            self._last_is_best[ours.number] = report["epoch"] == ours.best_epoch
            return
        self._last_is_best[ours.number] = ours.take(report, self._spec.objective, others=self._spec.objectives[1:])
        if self._last_is_best[ours.number]:
            ours.checkpoint = None  # until it comes: a function of the user's own need not save each report
        for listener in self._listeners:
            listener.trial_reported(ours, report)
        self._after_report()

    def broken(self, trial: Any, error: Exception) -> None:
        """A trial's report could not be taken: note that it fails, for when Ray has ended it."""
        ours = self._by_id[trial.trial_id]
        why = f"its report could not be taken: {summary_of(error)}"
        self._outcome[ours.number] = {STATUS: "failed", REASON: why, TRACEBACK: traceback_of(error)}

    def _note_micro_batches(self, trial: Trial, report: Mapping[str, Any]) -> None:
        """A trial ran out of memory, and tells with its reports how many micro-batches each batch is since then."""
        micro_batches = report.get(MICRO_BATCHES, 1) if trial.config.metrics is not None else 1
        if micro_batches > trial.micro_batches:
            trial.micro_batches = micro_batches
            for listener in self._listeners:
                listener.trial_changed_course(
                    trial, f"{OUT_OF_MEMORY}: it splits each batch into {micro_batches} micro-batches"
                )

    def _gone_back(self, trial: Trial, result: Mapping[str, Any]) -> None:
        """A trial could not read its latest checkpoints, and tells of it with its first report thereafter."""
        self._known[trial.number] = max(trial.epoch, self._known.get(trial.number, 0))
        damaged = {path: str(why) for path, why in result[DAMAGED].items()}
        trial.damaged |= {with_scheme_of(self._storage, path): why for path, why in damaged.items()}
        names = ", ".join("/".join(path.rsplit("/", 2)[-2:]) for path in damaged)
        from_where = f"epoch {result['epoch'] - 1}" if result.get("epoch", 1) > 1 else "the beginning"
        how = f"{names} cannot be read: it goes on from {from_where} · {'; '.join(dict.fromkeys(damaged.values()))}"
        for listener in self._listeners:
            listener.trial_changed_course(trial, how)

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        # Ray tells of a checkpoint right after the report that came with it.
        self._saved(self._by_id[trial.trial_id], with_scheme_of(self._storage, checkpoint.path))

    def _saved(self, ours: Trial, path: str) -> None:
        self._coming.pop(ours.number, None)
        if self._last_is_best.get(ours.number):
            ours.checkpoint = path
        if not (ours.mutations and ours.mutations[-1].epoch >= ours.epoch):  # else it goes on from its parent's
            ours.latest, ours.latest_epoch = path, self._epoch.get(ours.number, ours.epoch)
        for listener in self._listeners:
            listener.trial_saved(ours)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Take the checkpoints that were whole when the job ended: Ray asks for none of them any more."""
        for trial, name in list(self._coming.values()):
            ours = self._by_id[trial.trial_id]
            if ours.ended is None:
                self._saved(ours, with_scheme_of(self._storage, f"{trial.storage.trial_fs_path}/{name}"))

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """End the processes of trials that hang."""
        for trial, heard in list(self._heard.values()):
            actor = trial.temporary_state.ray_actor  # None while a population's trial waits for the others
            if actor is not None and time.monotonic() - heard > (self._spec.trial_timeout or 0.0):
                del self._heard[trial.trial_id]
                self._hung.add(self._by_id[trial.trial_id].number)
                trial.max_failures = 0  # it would hang again
                ray.kill(actor)

    def _hear(self, trial: Any) -> None:
        if self._spec.trial_timeout is not None:
            self._heard[trial.trial_id] = trial, time.monotonic()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self._by_id[trial.trial_id]
        self._heard.pop(trial.trial_id, None)
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
            names = " and ".join(repr(objective.metric) for objective in self._spec.objectives)
            status, reason = "failed", f"never reported {names} together"
        self._end(ours, status, reason, (outcome or {}).get(TRACEBACK, ""))
        _forget_statistics(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self._by_id[trial.trial_id]
        self._heard.pop(trial.trial_id, None)
        error = _error(trial)
        self._begin_to(ours)  # its process may be lost before Ray has told that it was there
        if self._stopping.reason == INTERRUPTION:  # whoever interrupts us may have ended all of our processes
            self._end(ours, "interrupted", "")
        elif ours.number in self._hung:
            self._end(ours, "failed", f"it hung: no report for {duration(self._spec.trial_timeout or 0.0)}")
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
        self._coming.pop(ours.number, None)  # it goes on from what Ray was told of
        self._heard.pop(trial.trial_id, None)  # until it has been begun again
        self._known[ours.number] = ours.epoch
        # A process that is lost to us may live on, cut off, and write the one checkpoint that it was at. It ends then,
        # for nobody asks it for more; what is begun again elsewhere writes to folders with other numbers.
        trial.storage.current_checkpoint_index += 1
        ours.lost += 1
        for listener in self._listeners:
            listener.trial_lost(ours, _last_line(_error(trial)))

    def _no_room(self, trial: Trial) -> None:
        """A disk is full, that of the trial's host or the storage: the other trials would fail of it, too."""
        where = f" for trial {trial.number}{f' on {trial.host}' if trial.host else ''}"
        self._stopping.give_up(f"{FULL}{where}; make room, and --resume continues the job")

    def _longest(self, trial: Trial) -> int | None:
        """Reports of a trial that nobody ends early; of a function of the user's own, as the scheduler was told."""
        length = trial.config.length
        return getattr(self._spec.scheduler, "longest", None) if length is None else length

    def _begin_to(self, last: Trial) -> None:
        """Begin all trials up to one: workers come up in any order, and a job that is killed is to leave no gap."""
        # Those that wait are the last ones: they are begun in the order in which they were handed out.
        waiting = takewhile(lambda ours: ours.status == "pending", reversed(self._by_id.values()))
        for trial in reversed([ours for ours in waiting if ours.number <= last.number]):
            trial.status = "running"
            trial.started = trial.started or time.time()
            for listener in self._listeners:
                listener.trial_started(trial)

    def _end(self, trial: Trial, status: Any, reason: str, traceback: str = "") -> None:
        trial.end(status, reason, traceback)
        for listener in self._listeners:
            listener.trial_ended(trial)


def _forget_statistics(trial: Any) -> None:
    """Let go of what Ray keeps of each metric of a trial that is over, 2 KB each: of thousands that adds up."""
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()


def _error(trial: Any) -> str:
    """What Ray knows of the error of one of its trials."""
    return str(trial.get_error() or (Path(trial.error_file).read_text() if trial.error_file else ""))


def _last_line(error: str) -> str:
    if killed_for_memory(error):
        return OUT_OF_MEMORY  # Ray's last line is on its settings
    lines = [line for line in error.splitlines() if line.strip()]
    return lines[-1].partition(" Worker exit type: ")[0] if lines else "nobody knows why"


def _report(trial: Trial, result: dict[str, Any]) -> dict[str, Any]:
    """What a trial measured: the metrics that it names, or of a function of the user's own all numbers."""
    if trial.config.metrics is not None:
        named = (*trial.config.metrics, *_OURS, *_WHERE_THERE_IS)
        return {name: result[name] for name in named if name in result or name not in _WHERE_THERE_IS}
    # The worker (`plain_report`) has left nothing but numbers in it, and what Ray and we say of it.
    numbers = {name: value for name, value in result.items() if name not in _OF_RAY and type(value) in (int, float)}
    return numbers | {"epoch": int(result[TIME])}
