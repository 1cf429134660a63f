"""Ray's schedulers, told what they have to know of our trials, and kept from what they must not."""

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
"""What a worker is given to train a configuration."""

_WORST = 1e30  # what Ray is told of a report that counts for nothing while there is no other to compare it with

_MOVES = 20  # mutations that may not be allowed, before a copy goes on unchanged


class _Live:
    """Ray Tune's controller, whose trials are those that have not ended: schedulers look through them at each step."""

    def __init__(self, controller: Any, by_id: Mapping[str, Trial]) -> None:
        self._controller = controller
        self._by_id = by_id

    def get_live_trials(self) -> list[Any]:
        # Ray itself goes on counting those whose process was lost for good: a population would wait for them.
        live = [trial for trial in self._controller.get_live_trials() if not trial.is_finished()]
        return sorted(live, key=lambda trial: self._by_id[trial.trial_id].number)

    get_trials = get_live_trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._controller, name)


class _TunedScheduler(TrialScheduler):  # type: ignore[misc]
    """What every scheduler of Ray's has to be told, or kept from: a mix-in, before Ray's class."""

    by_id: Mapping[str, Trial]
    """Our trial by Ray's id of it."""
    last: dict[str, dict[str, Any]]
    """The last report of an epoch, by Ray's id of the trial."""
    objectives: Sequence[Objective]
    """Those of the experiment; Ray sees the first."""
    worst: float | None
    """The worst value of the first objective so far."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        ours = self.by_id[trial.trial_id]
        # Ray would remember every checkpoint with its report: all that it asks for is the last.
        trial.run_metadata.checkpoint_manager._checkpoint_results = deque(maxlen=1)
        if ours.latest is not None:
            # Where Ray looks for a trial that has no checkpoint of this run.
            trial._restore_checkpoint_result = _restored(ours)
        # Population schedulers refuse searchers, which could hand out trials for ever. Ours hands out a population.
        super().on_trial_add(SimpleNamespace(search_alg=None), trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        return super().choose_trial_to_run(_Live(tune_controller, self.by_id))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if STATUS in result:  # how it ended, and no report of an epoch
            return str(TrialScheduler.CONTINUE)
        if self.objectives[0].metric not in result:
            return str(TrialScheduler.CONTINUE)  # nothing to go by: a population's trial goes on to its next report
        if result[TIME] <= self.last.get(trial.trial_id, {TIME: 0})[TIME]:
            return str(TrialScheduler.CONTINUE)  # it has gone back: of this epoch is decided already
        result = self._finite(result)
        self.last[trial.trial_id] = result
        if LAST in result:
            return str(TrialScheduler.CONTINUE)  # it ends of itself: of such a report Ray asks nobody, either
        return self._look(tune_controller, trial, result)

    def _finite(self, result: dict[str, Any]) -> dict[str, Any]:
        """A report for Ray's arithmetic: one with an objective that is NaN or infinite is as bad as the worst so far.

        To keep it back would have those wait for it that wait for each other, and what Ray computes of NaN is an
        accident of its sorting.
        """
        objective, *others = self.objectives
        value = objective.of(result)
        if value is not None and all(other.not_finite(result) is None for other in others):
            if self.worst is None or objective.beats(self.worst, value):
                self.worst = value
            return result
        if objective.metric not in result:
            return result
        nothing_yet = -_WORST if objective.mode == "max" else _WORST
        return result | {objective.metric: nothing_yet if self.worst is None else self.worst}

    def _look(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """What Ray's scheduler decides on a report of an epoch."""
        return str(super().on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        nothing = {TIME: 0, self.objectives[0].metric: math.nan}
        super().on_trial_complete(tune_controller, trial, self.last.pop(trial.trial_id, nothing))


class Mutating(_TunedScheduler):
    """Population schedulers: what a copy becomes is said by our space, and everybody is told."""

    spec: ExperimentSpec
    payload: Payload
    listeners: Sequence[TrialCallback]
    rng: np.random.Generator
    storage: str
    """Where the job's files are: of a URI, Ray's paths are but a part."""
    due: list[tuple[Trial, Mutation, AnyTrial, str]]
    """Mutations that are decided and not told."""
    _next_perturbation_sync: int
    """Ray's: the epoch at which the population is looked at next."""
    reached: int
    """Up to which epoch an earlier run of the job came: the next mutation is behind it, for all of them."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        before = self._trial_state.get(trial)
        super().on_trial_add(tune_controller, trial)
        # One whose process was lost is added again: the others wait until it has come to where it was.
        self._trial_state[trial].last_perturbation_time = before.last_perturbation_time if before else self.reached
        self.last.pop(trial.trial_id, None)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        # Ray looks at the population when the last one reports. That one may have failed on the way.
        if all(trial.is_finished() or self._waits(trial) for trial in tune_controller.get_live_trials()) and (
            live := _Live(tune_controller, self.by_id).get_live_trials()
        ):
            self._look(tune_controller, live[0], self._trial_state[live[0]].last_result)
            self.tell()
            # Whoever went on from a checkpoint behind the others' epoch may be where the next look would be.
            furthest = max(self._trial_state[trial].last_train_time for trial in live)
            if self._next_perturbation_sync <= furthest:
                self._next_perturbation_sync = furthest + self._perturbation_interval
        return super().choose_trial_to_run(tune_controller)

    def _waits(self, trial: Any) -> bool:
        there: bool = self._trial_state[trial].last_train_time >= self._next_perturbation_sync
        return there and trial.status == trial.PAUSED

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        length = self.by_id[trial.trial_id].config.length
        if length is not None and result[TIME] >= length:
            return str(TrialScheduler.CONTINUE)  # it has nothing to copy for any more
        return super().on_trial_result(tune_controller, trial, result)

    def _look(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        random.seed(f"{self.spec.search.seed} {result[TIME]}")  # Ray draws parents from the global generators
        np.random.seed([self.spec.search.seed % 2**32, result[TIME]])
        return super()._look(_Live(tune_controller, self.by_id), trial, result)

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, str]]:
        ours, parent = self.by_id[trial.trial_id], self.by_id[trial_to_clone.trial_id]
        after = parent.assignment
        self.spec.scheduler.sort_history(self)
        for _ in range(_MOVES):
            with warnings.catch_warnings():  # of few points a Gaussian process cannot tell much, and says so each time
                warnings.simplefilter("ignore")
                explored, _ = super()._get_new_config(trial, trial_to_clone)
            moved = self.spec.scheduler.mutated(self.spec.space, parent.assignment, explored["units"], self.rng)
            if self.spec.allows(moved):
                after = moved
                break
        # What Ray copies: of the parent we may not have been told yet.
        copied = self._trial_state[trial_to_clone]
        mutation = Mutation(int(copied.last_result[TIME]), parent.number, ours.assignment, after)
        config = self.spec.trial_config(after).model_copy(update={"seed": ours.config.seed})
        self.last.pop(trial.trial_id, None)  # it may go back to where its parent is
        self.due.append((ours, mutation, config, with_scheme_of(self.storage, copied.last_checkpoint.path)))
        return self.payload(config, after), {}

    def tell(self) -> None:
        """Note what became of whom, and tell. Ray asks its schedulers before it tells anybody of a report."""
        for trial, mutation, config, latest in self.due:
            trial.mutate(mutation, config, latest)
            for listener in self.listeners:
                listener.trial_mutated(trial, mutation)
        self.due.clear()


def _restored(trial: Trial) -> Any:
    return internal("TrainingResult")(checkpoint=tune.Checkpoint(trial.latest), metrics={TIME: trial.latest_epoch})


def ray_class_of(scheduler: SchedulerConfig) -> Any:
    """Ray Tune's class for a scheduler, mended where it has to be."""
    return MENDED.get(scheduler.ray_class) or resolve_name(scheduler.ray_class)


def build_scheduler(
    spec: ExperimentSpec,
    by_id: Mapping[str, Trial],
    past: Sequence[Trial],
    payload: Payload,
    storage: str,
    listeners: Sequence[TrialCallback],
) -> Any:
    """Ray's scheduler for an experiment, informed.

    Args:
        spec: The experiment.
        by_id: Our trial by Ray's id of it; it fills as trials begin.
        past: The trials of an earlier run of the job.
        payload: What a worker is given to train a configuration.
        storage: Where the job's files are: of a URI, Ray's paths are but a part.
        listeners: Told of mutations.
    """
    ray_class = ray_class_of(spec.scheduler)
    arguments = spec.scheduler.arguments(spec.objective, spec.trial.length, spec.space)
    mixin = Mutating if spec.scheduler.mutates else _TunedScheduler
    scheduler = type(f"Informed{ray_class.__name__}", (mixin, ray_class), {})(**arguments)
    scheduler.by_id, scheduler.last = by_id, {}
    scheduler.objectives, scheduler.worst = spec.objectives, None
    if spec.scheduler.accepts_history:
        _remind(scheduler, past, spec.objective.metric)
    if isinstance(scheduler, Mutating):
        scheduler.spec, scheduler.payload, scheduler.listeners = spec, payload, listeners
        scheduler.storage, scheduler.due = storage, []
        scheduler.rng = np.random.default_rng(spec.search.seed)
        interval = scheduler._perturbation_interval
        latest = max((trial.latest_epoch for trial in past if trial.ended is None), default=0)
        scheduler.reached = latest // interval * interval
        # Who is further than the others waits for them there, or would have to go back.
        scheduler._next_perturbation_sync = scheduler.reached + interval
    return scheduler


def _remind(scheduler: Any, past: Sequence[Trial], metric: str) -> None:
    """Tell a scheduler of Ray's what an earlier run of the job saw: each trial's reports, in their order."""
    nobody = SimpleNamespace(get_live_trials=list, search_alg=None)
    for trial in past:
        stand_in = SimpleNamespace(trial_id=f"past-{trial.number}")
        super(_TunedScheduler, scheduler).on_trial_add(nobody, stand_in)
        for epoch, value in trial.series.items():
            if scheduler.worst is None or scheduler.objectives[0].beats(scheduler.worst, value):
                scheduler.worst = value
            super(_TunedScheduler, scheduler).on_trial_result(nobody, stand_in, {TIME: epoch, metric: value})
