"""Between the plan and Ray Tune: which trial is next, what happens to it, when to stop."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from tuner.cluster import Share
from tuner.scoring import Objective
from tuner.trainable import train_trial
from tuner.trials import REASON, STATUS, TRACEBACK, Listener, Trial

_OURS = ("epoch", "device", "precision")


class Stop(tune.Stopper):  # type: ignore[misc]
    """Ends a job: at its deadline, or when it is asked to."""

    def __init__(self, timeout: float | None) -> None:
        self._deadline = None if timeout is None else time.time() + timeout
        self.reason = ""
        """Why the job was ended; empty while it was not."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False  # no single trial is ended here

    def stop_all(self) -> bool:
        if not self.reason and self._deadline is not None and time.time() > self._deadline:
            self.reason = "timeout"
        return bool(self.reason)


class Planned(Searcher):  # type: ignore[misc]
    """Hands Ray Tune the trials of a plan, in order, and knows which of Ray's trials is which of ours."""

    def __init__(self, trials: Sequence[Trial], payload: Callable[[Trial], dict[str, Any]]) -> None:
        super().__init__()
        self._waiting = list(reversed(trials))
        self._payload = payload
        self.by_id: dict[str, Trial] = {}
        """Our trial by Ray's id of it."""

    def name(self, trial: Any) -> str:
        """What Ray calls a trial, and its folder."""
        return f"trial-{self.by_id[trial.trial_id].number:04d}"

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        if not self._waiting:
            return str(Searcher.FINISHED)
        trial = self._waiting.pop()
        self.by_id[trial_id] = trial
        return self._payload(trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A plan learns nothing from its trials."""

    def save(self, checkpoint_path: str) -> None:
        """The plan is drawn up again from the specification."""

    def restore(self, checkpoint_path: str) -> None:
        """The plan is drawn up again from the specification."""


class Events(tune.Callback):  # type: ignore[misc]
    """Turns Ray Tune's callbacks into what our listeners understand, and keeps our trials up to date."""

    def __init__(
        self, by_id: dict[str, Trial], objective: Objective, storage: str, listeners: Sequence[Listener]
    ) -> None:
        self._by_id = by_id
        self._objective = objective
        self._listeners = listeners
        self._scheme = storage[: storage.index("://") + 3] if "://" in storage else ""
        self._last_is_best: dict[int, bool] = {}
        self._outcome: dict[int, dict[str, str]] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self._by_id[trial.trial_id]
        ours.status = "running"
        ours.started = ours.started or time.time()
        for listener in self._listeners:
            listener.trial_started(ours)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        ours = self._by_id[trial.trial_id]
        if STATUS in result:
            self._outcome[ours.number] = result
            return
        report = {name: result[name] for name in (*ours.config.metrics, *_OURS)}
        self._last_is_best[ours.number] = ours.take(report, self._objective)
        for listener in self._listeners:
            listener.trial_reported(ours, report)

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        # Ray tells of a checkpoint right after the report that came with it.
        ours = self._by_id[trial.trial_id]
        if self._last_is_best.get(ours.number):
            ours.checkpoint = self._scheme + checkpoint.path  # Ray's path has lost it

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        outcome = self._outcome.pop(self._by_id[trial.trial_id].number, {})
        self._end(trial, outcome.get(STATUS, "completed"), outcome.get(REASON, ""), outcome.get(TRACEBACK, ""))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = trial.get_error()
        self._end(trial, "failed", f"the worker was lost: {str(error).splitlines()[0] if error else 'no reason given'}")

    def _end(self, trial: Any, status: Any, reason: str, traceback: str = "") -> None:
        end(self._by_id[trial.trial_id], status, reason, self._listeners, traceback)


def end(trial: Trial, status: Any, reason: str, listeners: Sequence[Listener], traceback: str = "") -> None:
    """Note that a trial has ended, and tell."""
    trial.status, trial.reason, trial.traceback, trial.ended = status, reason, traceback, time.time()
    for listener in listeners:
        listener.trial_ended(trial)


def schedule(
    trials: Sequence[Trial],
    share: Share,
    objective: Objective,
    *,
    storage: str,
    job: str,
    stop: Stop,
    listeners: Sequence[Listener],
) -> None:
    """Run trials on Ray Tune until all have ended or `stop` says so.

    Args:
        trials: The plan, in order.
        share: What each trial takes.
        objective: What decides which checkpoint of a trial is kept.
        storage: Folder or URI below which the job has its own.
        job: Name of the job's folder.
        stop: Ends the job early.
        listeners: Told of everything that happens.
    """

    def payload(trial: Trial) -> dict[str, Any]:
        return {
            "trial": trial.config.model_dump(mode="json"),
            "objective": objective.model_dump(),
            "threads": share.threads,
            "gpu": share.gpu > 0,
        }

    # Ray prepares one trial at a time for a searcher unless told otherwise: the second worker would wait for the first.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(share.slots)
    searcher = Planned(trials, payload)
    # tune.run and not tune.Tuner: that one pickles all of this for a restore that is not ours.
    tune.run(
        train_trial,
        name=job,
        storage_path=storage,
        resources_per_trial={"cpu": share.cpu, "gpu": share.gpu},
        search_alg=searcher,
        num_samples=len(trials),
        reuse_actors=True,
        trial_name_creator=searcher.name,
        trial_dirname_creator=searcher.name,
        stop=stop,
        callbacks=[Events(searcher.by_id, objective, storage, listeners)],
        checkpoint_config=tune.CheckpointConfig(
            num_to_keep=1,  # and the last one, which Ray keeps beside it to go on from
            checkpoint_score_attribute=objective.metric,
            checkpoint_score_order=objective.mode,
        ),
        raise_on_failed_trial=False,
        verbose=0,
    )
