"""Ray Tune's schedulers, adapted: they get the driver's trials, and only reports that they can decide on."""

import math
import random
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray import tune
from ray.tune.schedulers import TrialScheduler

from tuner.config_keys import Assignment
from tuner.objectives import Objective
from tuner.ray_backend.internals import internal
from tuner.ray_backend.tune_internals import MENDED
from tuner.report_keys import LAST, STATUS, TIME
from tuner.search.schedulers import SchedulerConfig
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.filesystem import with_scheme_of
from tuner.train.trial_base import AnyTrial
from tuner.trials.callback import TrialCallback
from tuner.trials.trial import Mutation, Trial

Payload = Callable[[AnyTrial, Assignment], dict[str, Any]]
"""Returns the payload with which a worker trains a configuration."""

_WORST = 1e30  # the objective that Ray gets for NaN or infinity before any report with a finite value

_MOVES = 20  # mutations to try; if the constraints allow none of them, the copy keeps its parent's values


class _Live:
    """Ray Tune's controller with the live trials only: schedulers iterate over the trials at each step."""

    def __init__(self, controller: Any, by_id: Mapping[str, Trial]) -> None:
        self._controller = controller
        self._by_id = by_id

    def get_live_trials(self) -> list[Any]:
        # Ray also counts trials that failed because their worker was lost: a population would wait for them.
        live = [trial for trial in self._controller.get_live_trials() if not trial.is_finished()]
        return sorted(live, key=lambda trial: self._by_id[trial.trial_id].number)

    get_trials = get_live_trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._controller, name)


class _TunedScheduler(TrialScheduler):  # type: ignore[misc]
    """Adapts each of Ray's schedulers: a mix-in, before Ray's class."""

    by_id: Mapping[str, Trial]
    """The driver's trial by the id of Ray's trial."""
    last: dict[str, dict[str, Any]]
    """Each trial's last report of an epoch, by the id of Ray's trial."""
    objectives: Sequence[Objective]
    """The experiment's objectives; Ray sees the first."""
    worst: float | None
    """The worst value of the first objective so far."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        ours = self.by_id[trial.trial_id]
        # Ray would keep every checkpoint with its report, and uses only the last.
        trial.run_metadata.checkpoint_manager._checkpoint_results = deque(maxlen=1)
        if ours.latest is not None:
            # Ray resumes a trial without a checkpoint of this invocation from this one.
            trial._restore_checkpoint_result = _restored(ours)
        # Population schedulers refuse searchers, which may suggest trials without end. Ours suggests one population.
        super().on_trial_add(SimpleNamespace(search_alg=None), trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        return super().choose_trial_to_run(_Live(tune_controller, self.by_id))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if STATUS in result:  # the trial's outcome, not a report of an epoch
            return str(TrialScheduler.CONTINUE)
        if self.objectives[0].metric not in result:
            return str(TrialScheduler.CONTINUE)  # nothing to decide on: the trial continues to its next report
        if result[TIME] <= self.last.get(trial.trial_id, {TIME: 0})[TIME]:
            return str(TrialScheduler.CONTINUE)  # it went back to a checkpoint: this epoch is decided already
        result = self._finite(result)
        self.last[trial.trial_id] = result
        if LAST in result:
            return str(TrialScheduler.CONTINUE)  # the trial ends by itself: Ray itself skips the scheduler then, too
        return self._decide(tune_controller, trial, result)

    def _finite(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return the report with a finite objective: the worst value so far replaces NaN or infinity.

        Without the report, trials that wait for each other would wait for ever; with NaN, Ray's decision would depend
        on how its sort happens to order NaN.
        """
        objective, *others = self.objectives
        value = objective.of(result)
        if value is not None and all(other.not_finite(result) is None for other in others):
            if self.worst is None or objective.beats(self.worst, value):
                self.worst = value
            return result
        if objective.metric not in result:
            return result
        default = -_WORST if objective.mode == "max" else _WORST
        return result | {objective.metric: default if self.worst is None else self.worst}

    def _decide(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return the decision of Ray's scheduler on a report of an epoch."""
        return str(super().on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        no_report = {TIME: 0, self.objectives[0].metric: math.nan}
        super().on_trial_complete(tune_controller, trial, self.last.pop(trial.trial_id, no_report))


class Mutating(_TunedScheduler):
    """Adapts population schedulers: the search space mutates the values of a copy, and callbacks get the mutation."""

    spec: ExperimentSpec
    payload: Payload
    listeners: Sequence[TrialCallback]
    rng: np.random.Generator
    storage: str
    """The job's storage, a folder or a URI: Ray's paths lack the URI's scheme and host."""
    due: list[tuple[Trial, Mutation, AnyTrial, str]]
    """Decided mutations that the trials and the callbacks have not got yet."""
    _next_perturbation_sync: int
    """Ray's attribute: the epoch at which it compares the population next."""
    reached: int
    """The epoch that the job's earlier invocations reached: the next mutation of every trial comes after it."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        earlier = self._trial_state.get(trial)
        super().on_trial_add(tune_controller, trial)
        # Ray adds a trial again when its worker was lost: the others wait until it reaches its earlier epoch.
        self._trial_state[trial].last_perturbation_time = earlier.last_perturbation_time if earlier else self.reached
        self.last.pop(trial.trial_id, None)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        # Ray compares the population when its last trial reports; that trial may have failed before it did.
        if all(trial.is_finished() or self._is_waiting(trial) for trial in tune_controller.get_live_trials()) and (
            live := _Live(tune_controller, self.by_id).get_live_trials()
        ):
            self._decide(tune_controller, live[0], self._trial_state[live[0]].last_result)
            self.tell()
            # A copy of a checkpoint of a later epoch than the others' may be past the next comparison already.
            furthest = max(self._trial_state[trial].last_train_time for trial in live)
            if self._next_perturbation_sync <= furthest:
                self._next_perturbation_sync = furthest + self._perturbation_interval
        return super().choose_trial_to_run(tune_controller)

    def _is_waiting(self, trial: Any) -> bool:
        has_arrived: bool = self._trial_state[trial].last_train_time >= self._next_perturbation_sync
        return has_arrived and trial.status == trial.PAUSED

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        length = self.by_id[trial.trial_id].config.length
        if length is not None and result[TIME] >= length:
            return str(TrialScheduler.CONTINUE)  # the trial is complete: a copy would have no epoch left to train
        return super().on_trial_result(tune_controller, trial, result)

    def _decide(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        random.seed(f"{self.spec.search.seed} {result[TIME]}")  # Ray draws parents from the global generators
        np.random.seed([self.spec.search.seed % 2**32, result[TIME]])
        return super()._decide(_Live(tune_controller, self.by_id), trial, result)

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, str]]:
        ours, parent = self.by_id[trial.trial_id], self.by_id[trial_to_clone.trial_id]
        after = parent.assignment
        self.spec.scheduler.sort_history(self)
        for _ in range(_MOVES):
            with warnings.catch_warnings():  # the Gaussian process warns at each call while it has few points
                warnings.simplefilter("ignore")
                explored, _ = super()._get_new_config(trial, trial_to_clone)
            moved = self.spec.scheduler.mutated(self.spec.space, parent.assignment, explored["units"], self.rng)
            if self.spec.allows(moved):
                after = moved
                break
        # The state that Ray copies: `parent` itself may not have got that report yet.
        copied = self._trial_state[trial_to_clone]
        mutation = Mutation(int(copied.last_result[TIME]), parent.number, ours.assignment, after)
        config = self.spec.trial_config(after).model_copy(update={"seed": ours.config.seed})
        self.last.pop(trial.trial_id, None)  # the copy may be at an earlier epoch than the trial was
        self.due.append((ours, mutation, config, with_scheme_of(self.storage, copied.last_checkpoint.path)))
        return self.payload(config, after), {}

    def tell(self) -> None:
        """Apply the decided mutations to the trials and call the callbacks.

        This follows the callbacks of the report, which Ray calls after the scheduler.
        """
        for trial, mutation, config, latest in self.due:
            trial.mutate(mutation, config, latest)
            for listener in self.listeners:
                listener.trial_mutated(trial, mutation)
        self.due.clear()


def _restored(trial: Trial) -> Any:
    return internal("TrainingResult")(checkpoint=tune.Checkpoint(trial.latest), metrics={TIME: trial.latest_epoch})


def ray_class_of(scheduler: SchedulerConfig) -> Any:
    """Return Ray Tune's class for a scheduler, or our fixed subclass of it where Ray's has a bug."""
    return MENDED.get(scheduler.ray_class) or resolve_name(scheduler.ray_class)


def build_scheduler(
    spec: ExperimentSpec,
    by_id: Mapping[str, Trial],
    past: Sequence[Trial],
    payload: Payload,
    storage: str,
    listeners: Sequence[TrialCallback],
) -> Any:
    """Return Ray's scheduler for an experiment, adapted by the mix-ins above.

    Args:
        spec: The experiment.
        by_id: The driver's trial by the id of Ray's trial; the caller adds trials as they begin.
        past: The trials of the job's earlier invocations.
        payload: Returns the payload with which a worker trains a configuration.
        storage: The job's storage, a folder or a URI: Ray's paths lack the URI's scheme and host.
        listeners: The callbacks to call with each mutation.
    """
    ray_class = ray_class_of(spec.scheduler)
    arguments = spec.scheduler.arguments(spec.objective, spec.trial.length, spec.space)
    mixin = Mutating if spec.scheduler.mutates else _TunedScheduler
    scheduler = type(f"Informed{ray_class.__name__}", (mixin, ray_class), {})(**arguments)
    scheduler.by_id, scheduler.last = by_id, {}
    scheduler.objectives, scheduler.worst = spec.objectives, None
    if spec.scheduler.accepts_history:
        _replay(scheduler, past, spec.objective.metric)
    if isinstance(scheduler, Mutating):
        scheduler.spec, scheduler.payload, scheduler.listeners = spec, payload, listeners
        scheduler.storage, scheduler.due = storage, []
        scheduler.rng = np.random.default_rng(spec.search.seed)
        interval = scheduler._perturbation_interval
        latest = max((trial.latest_epoch for trial in past if trial.ended is None), default=0)
        scheduler.reached = latest // interval * interval
        # A trial that is ahead of the others waits for them at this epoch.
        scheduler._next_perturbation_sync = scheduler.reached + interval
    return scheduler


def _replay(scheduler: Any, past: Sequence[Trial], metric: str) -> None:
    """Pass the reports of the job's earlier invocations to Ray's scheduler, trial by trial, in their order."""
    controller = SimpleNamespace(get_live_trials=list, search_alg=None)
    for trial in past:
        stand_in = SimpleNamespace(trial_id=f"past-{trial.number}")
        super(_TunedScheduler, scheduler).on_trial_add(controller, stand_in)
        for epoch, value in trial.series.items():
            if scheduler.worst is None or scheduler.objectives[0].beats(scheduler.worst, value):
                scheduler.worst = value
            super(_TunedScheduler, scheduler).on_trial_result(controller, stand_in, {TIME: epoch, metric: value})
