"""Between our trials and Ray Tune: which trial is next, what happens to it, when to stop."""

import math
import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher as RaySearcher

from tuner import imports
from tuner.any_trial import AnyTrial
from tuner.cluster import Share
from tuner.ending import Ending
from tuner.events import Events
from tuner.scheduler import TIME
from tuner.space import Assignment
from tuner.spec import ExperimentSpec
from tuner.supply import Supply
from tuner.trainable import run_target, train_trial
from tuner.trial_config import TrialConfig
from tuner.trials import STATUS, Listener, Mutation, Trial

Payload = Callable[[AnyTrial, Assignment], dict[str, Any]]
"""What a worker is given to train a configuration."""

_MOVES = 20  # mutations that may not be allowed, before a copy goes on unchanged


class _Stop(tune.Stopper):  # type: ignore[misc]
    """Asks `Ending` on behalf of Ray Tune."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False  # no single trial is ended here

    def stop_all(self) -> bool:
        return self._ending.is_due()


class _Handing(RaySearcher):  # type: ignore[misc]
    """Hands Ray Tune the trials of the supply, and knows which of Ray's trials is which of ours."""

    def __init__(self, supply: Supply, payload: Payload) -> None:
        super().__init__()
        self._supply = supply
        self._payload = payload
        self.by_id: dict[str, Trial] = {}
        """Our trial by Ray's id of it."""

    def name(self, trial: Any) -> str:
        """What Ray calls a trial, and its folder: a new one for each time that it was begun again."""
        ours = self.by_id[trial.trial_id]
        return f"trial-{ours.number:04d}" + (f"-resumed-{ours.resumed}" if ours.resumed else "")

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        trial = self._supply.next()
        if trial is None:
            # "Finished" while trials wait for each other would end the workers that they wait for.
            is_over = all(ours.ended is not None for ours in self._supply.trials)
            return str(RaySearcher.FINISHED) if is_over else None
        self.by_id[trial_id] = trial
        return self._payload(trial.config, trial.assignment)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The supply is told by `Events`: it knows how the trial ended."""

    def save(self, checkpoint_path: str) -> None:
        """The journal knows."""

    def restore(self, checkpoint_path: str) -> None:
        """The journal knows."""


class _Informed(TrialScheduler):  # type: ignore[misc]
    """What every scheduler of Ray's has to be told, or kept from: a mix-in, before Ray's class."""

    by_id: dict[str, Trial]
    """Our trial by Ray's id of it."""
    last: dict[str, dict[str, Any]]
    """The last report of an epoch, by Ray's id of the trial."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        ours = self.by_id[trial.trial_id]
        if ours.latest is not None:
            # Where Ray looks for a trial that has no checkpoint of this run.
            trial._restore_checkpoint_result = _restored(ours)
        # Population schedulers refuse searchers, which could hand out trials for ever. Ours hands out a population.
        super().on_trial_add(SimpleNamespace(search_alg=None), trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if STATUS in result:  # how it ended, and no report of an epoch
            return str(TrialScheduler.CONTINUE)
        self.last[trial.trial_id] = result
        return str(super().on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        nothing = {TIME: 0, getattr(self, "_metric", None): math.nan}
        super().on_trial_complete(tune_controller, trial, self.last.pop(trial.trial_id, nothing))


class _Mutating(_Informed):
    """Population schedulers: what a copy becomes is said by our space, and everybody is told."""

    spec: ExperimentSpec
    payload: Payload
    listeners: Sequence[Listener]
    rng: np.random.Generator
    scheme: str
    """Scheme of the storage's URI, which Ray's paths have lost; empty for a folder."""
    due: list[tuple[Trial, Mutation, AnyTrial, str]]
    """Mutations that are decided and not told."""
    reached: int
    """Up to which epoch an earlier run of the job came: the next mutation is behind it, for all of them."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)
        self._trial_state[trial].last_perturbation_time = self.reached

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        length = self.by_id[trial.trial_id].config.length
        if length is not None and result[TIME] >= length:
            return str(TrialScheduler.CONTINUE)  # it has nothing to copy for any more
        random.seed(f"{self.spec.search.seed} {result[TIME]}")  # Ray draws parents from the global generators
        np.random.seed([self.spec.search.seed % 2**32, result[TIME]])
        return super().on_trial_result(tune_controller, trial, result)

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, str]]:
        ours, parent = self.by_id[trial.trial_id], self.by_id[trial_to_clone.trial_id]
        after = parent.assignment
        self.spec.scheduler.settle(self)
        for _ in range(_MOVES):
            explored, _ = super()._get_new_config(trial, trial_to_clone)
            moved = self.spec.scheduler.mutated(self.spec.space, parent.assignment, explored["units"], self.rng)
            if self.spec.allows(moved):
                after = moved
                break
        # What Ray copies: of the parent we may not have been told yet.
        copied = self._trial_state[trial_to_clone]
        mutation = Mutation(int(copied.last_result[TIME]), parent.number, ours.assignment, after)
        config = self.spec.trial_config(after).model_copy(update={"seed": ours.config.seed})
        self.due.append((ours, mutation, config, self.scheme + copied.last_checkpoint.path))
        return self.payload(config, after), {}

    def tell(self) -> None:
        """Note what became of whom, and tell. Ray asks its schedulers before it tells anybody of a report."""
        for trial, mutation, config, latest in self.due:
            trial.mutate(mutation, config, latest)
            for listener in self.listeners:
                listener.trial_mutated(trial, mutation)
        self.due.clear()


def _restored(trial: Trial) -> Any:
    from ray.train._internal.session import _TrainingResult

    return _TrainingResult(checkpoint=tune.Checkpoint(trial.latest), metrics={TIME: trial.latest_epoch})


def end_running(trials: Sequence[Trial], reason: str, listeners: Sequence[Listener]) -> None:
    """Note that the job's end interrupted what was still running, or had not been begun again, and tell."""
    for trial in trials:
        if trial.status == "running" or (trial.status == "pending" and trial.resumed):
            trial.end("interrupted", reason)
            for listener in listeners:
                listener.trial_ended(trial)


def schedule(
    spec: ExperimentSpec,
    supply: Supply,
    share: Share,
    *,
    storage: str,
    job: str,
    ending: Ending,
    listeners: Sequence[Listener],
) -> None:
    """Run trials on Ray Tune until the supply is used up and all have ended, or `ending` says so.

    Args:
        spec: The experiment.
        supply: Where the trials come from.
        share: What each trial takes.
        storage: Folder or URI below which the job has its own.
        job: Name of the job's folder.
        ending: Ends the job early.
        listeners: Told of everything that happens.
    """
    objective = spec.objective

    def payload(config: AnyTrial, assignment: Assignment) -> dict[str, Any]:
        return {
            "trial": config.model_dump(mode="json"),
            "objective": objective.model_dump(),
            "threads": share.threads,
            "gpu": share.gpu > 0,
            "units": {name: spec.space[name].unit(value) for name, value in assignment.items()},
        }

    searcher = _Handing(supply, payload)
    scheme = storage[: storage.index("://") + 3] if "://" in storage else ""
    scheduler = _scheduler(spec, searcher, supply, payload, scheme, listeners)
    tell = scheduler.tell if isinstance(scheduler, _Mutating) else lambda: None
    length = spec.trial.length
    # Ray prepares one trial at a time for a searcher unless told otherwise: the second worker would wait for the first.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(share.slots, spec.scheduler.ahead(length, supply.total)))
    np.random.seed(spec.search.seed % 2**32)  # Ray's ASHA deals brackets from the global generator
    # tune.run and not tune.Tuner: that one pickles all of this for a restore that is not ours.
    tune.run(
        _trainable(spec),
        name=job,
        storage_path=storage,
        resources_per_trial={"cpu": share.cpu, "gpu": share.gpu},
        search_alg=searcher,
        scheduler=scheduler,
        num_samples=-1,  # until the supply is used up
        reuse_actors=True,
        trial_name_creator=searcher.name,
        trial_dirname_creator=searcher.name,
        stop=_Stop(ending),
        callbacks=[Events(searcher.by_id, spec, scheme, ending, listeners, tell)],
        checkpoint_config=_kept(spec),
        raise_on_failed_trial=False,
        verbose=0,
    )
    supply.forget_unbegun()
    if "://" not in storage and (spec.scheduler.mutates or any(trial.resumed for trial in supply.trials)):
        _clear_up(Path(storage, job), supply.trials)


def _clear_up(folder: Path, trials: Sequence[Trial]) -> None:
    """Delete a job's checkpoints but for the best of each trial, and those that somebody goes on from.

    Ray itself keeps but a few of each trial; not of a population, and not of what an earlier run of the job has left.
    """
    needed = {trial.checkpoint for trial in trials} | {trial.latest for trial in trials if trial.ended is None}
    for checkpoint in folder.glob("*/checkpoint_*"):
        if str(checkpoint) not in needed:
            shutil.rmtree(checkpoint, ignore_errors=True)


def _trainable(spec: ExperimentSpec) -> Any:
    """What runs on the workers, with the user's own code where the trial needs it."""
    trainable = train_trial if isinstance(spec.trial, TrialConfig) else run_target
    carried = imports.packed(spec.trial.targets)
    return tune.with_parameters(trainable, carried=carried) if carried else trainable


def _scheduler(
    spec: ExperimentSpec,
    searcher: _Handing,
    supply: Supply,
    payload: Payload,
    scheme: str,
    listeners: Sequence[Listener],
) -> Any:
    """Ray's scheduler, informed."""
    ray_class, arguments = spec.scheduler.build(spec.objective, spec.trial.length, spec.space)
    mixin = _Mutating if spec.scheduler.mutates else _Informed
    scheduler = type(f"Informed{ray_class.__name__}", (mixin, ray_class), {})(**arguments)
    scheduler.by_id, scheduler.last = searcher.by_id, {}
    if spec.scheduler.remembers:
        _remind(scheduler, supply.trials, spec.objective.metric)
    if isinstance(scheduler, _Mutating):
        scheduler.spec, scheduler.payload, scheduler.listeners = spec, payload, listeners
        scheduler.scheme, scheduler.due = scheme, []
        scheduler.rng = np.random.default_rng(spec.search.seed)
        interval = scheduler._perturbation_interval
        latest = max((trial.latest_epoch for trial in supply.unfinished), default=0)
        scheduler.reached = latest // interval * interval
        # Who is further than the others waits for them there, or would have to go back.
        scheduler._next_perturbation_sync = scheduler.reached + interval
    return scheduler


def _remind(scheduler: Any, past: Sequence[Trial], metric: str) -> None:
    """Tell a scheduler of Ray's what an earlier run of the job saw: each trial's reports, in their order."""
    nobody = SimpleNamespace(get_live_trials=list, search_alg=None)
    for trial in past:
        stand_in = SimpleNamespace(trial_id=f"past-{trial.number}")
        super(_Informed, scheduler).on_trial_add(nobody, stand_in)
        for epoch, value in trial.series.items():
            super(_Informed, scheduler).on_trial_result(nobody, stand_in, {TIME: epoch, metric: value})


def _kept(spec: ExperimentSpec) -> Any:
    """Which checkpoints of a trial are kept."""
    if spec.scheduler.mutates:
        return tune.CheckpointConfig()  # all of them: any may be copied, until the job is over
    return tune.CheckpointConfig(
        num_to_keep=1,  # and the last one, which Ray keeps beside it to go on from
        checkpoint_score_attribute=spec.objective.metric,
        checkpoint_score_order=spec.objective.mode,
    )
