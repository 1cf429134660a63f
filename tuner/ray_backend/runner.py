"""Between our trials and Ray Tune: which trial is next, what happens to it, when to stop."""

import gc
import json
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.tune.search import Searcher as RaySearcher

from tuner.config_keys import Assignment
from tuner.ray_backend.callback import TuneCallback
from tuner.ray_backend.cluster.resources import TrialResources
from tuner.ray_backend.guards import InternalErrors
from tuner.ray_backend.internals import internal
from tuner.ray_backend.schedulers import Mutating, Payload, build_scheduler
from tuner.ray_backend.tune_internals import Controller
from tuner.ray_backend.worker.trainable import run_target, test, train_trial
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.spec.experiment import ExperimentSpec
from tuner.tracking.user_mlflow import UserMlflow
from tuner.train.trial_base import AnyTrial
from tuner.trials.callback import TrialCallback
from tuner.trials.generator import TrialGenerator
from tuner.trials.layout import folder_name
from tuner.trials.stopping import StoppingCriteria
from tuner.trials.trial import Trial

_NAME = "name"
"""Key of what a worker is given: what Ray calls the trial, and its folder."""


def _name(trial: Any) -> str:
    """What Ray calls a trial. A plain function: Ray copies and pickles it with each trial, and all that it holds."""
    return str(trial.config[_NAME])


class _Stop(tune.Stopper):  # type: ignore[misc]
    """Asks `StoppingCriteria` on behalf of Ray Tune."""

    def __init__(self, stopping: StoppingCriteria) -> None:
        self._stopping = stopping

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False  # no single trial is ended here

    def stop_all(self) -> bool:
        return self._stopping.is_due()


class _Handing(RaySearcher):  # type: ignore[misc]
    """Hands Ray Tune the trials of the supply, and knows which of Ray's trials is which of ours."""

    def __init__(self, generator: TrialGenerator, payload: Payload, internal_errors: InternalErrors) -> None:
        super().__init__()
        self._internal_errors = internal_errors
        self._is_broken = False
        self._supply = generator
        self._payload = payload
        self.by_id: dict[str, Trial] = {}
        """Our trial by Ray's id of it."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        trial = self._next()
        if trial is None:
            # "Finished" while trials wait for each other would end the workers that they wait for.
            is_over = all(ours.ended is not None for ours in self._supply.trials)
            return str(RaySearcher.FINISHED) if is_over else None
        self.by_id[trial_id] = trial
        name = folder_name(trial.number, trial.resumed)
        return self._payload(trial.config, trial.assignment) | {_NAME: name}

    def _next(self) -> Trial | None:
        """The next trial; none where the searcher fails: what it suggests after that nobody can trust."""
        try:
            return None if self._is_broken else self._supply.next()
        except Exception as error:
            self._is_broken = True
            self._internal_errors.note("the search", error)
            return None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The supply is told by `TuneCallback`: it knows how the trial ended."""

    def save(self, checkpoint_path: str) -> None:
        """The journal knows."""

    def restore(self, checkpoint_path: str) -> None:
        """The journal knows."""


def end_running(trials: Sequence[Trial], reason: str, listeners: Sequence[TrialCallback]) -> None:
    """Note that the job's end interrupted what was still running, or had not been begun again, and tell."""
    for trial in trials:
        if trial.status == "running" or (trial.status == "pending" and trial.resumed):
            trial.end("interrupted", reason)
            for listener in listeners:
                listener.trial_ended(trial)


def run_trials(
    spec: ExperimentSpec,
    generator: TrialGenerator,
    share: TrialResources,
    *,
    storage: str,
    job: str,
    stopping: StoppingCriteria,
    listeners: Sequence[TrialCallback],
    user_mlflow: UserMlflow,
    internal_errors: InternalErrors,
    user_folder: UserFolder | None,
) -> None:
    """Run trials on Ray Tune until the supply is used up and all have ended, or `stopping` says so.

    Args:
        spec: The experiment.
        generator: Where the trials come from.
        share: What each trial takes.
        storage: Folder or URI below which the job has its own.
        job: Name of the job's folder.
        stopping: Ends the job early.
        listeners: Told of everything that happens.
        user_mlflow: Where code of the user's own logs that uses MLflow itself.
        internal_errors: Told of errors of this program.
        user_folder: Where workers find code of the user's own; None where they need none.
    """
    objective = spec.objective

    def payload(config: AnyTrial, assignment: Assignment) -> dict[str, Any]:
        task = {
            "trial": config.model_dump(mode="json"),
            "objective": objective.model_dump(),
            "objectives": [each.metric for each in spec.objectives],
            "threads": share.threads,
            "gpu": share.gpu > 0,
            "halves": spec.retry.out_of_memory == "halve_batch",
            # A population copies what it has seen: nobody in it may have gone on from there meanwhile.
            "beside": not spec.scheduler.mutates,
        }
        # Ray sends it back with each report, and flattens it twice: as a text it is one value.
        told: dict[str, Any] = {"task": json.dumps(task)}
        if spec.scheduler.mutates:  # what it moves
            told["units"] = {name: spec.space[name].unit(value) for name, value in assignment.items()}
        return told

    searcher = _Handing(generator, payload, internal_errors)
    scheduler = build_scheduler(spec, searcher.by_id, generator.trials, payload, storage, listeners)
    tell = scheduler.tell if isinstance(scheduler, Mutating) else lambda: None
    length = spec.trial.length
    # Ray prepares one trial at a time for a searcher unless told otherwise: the second worker would wait for the first.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(share.ahead, spec.scheduler.ahead(length, generator.total)))
    np.random.seed(spec.search.seed % 2**32)  # Ray's ASHA deals brackets from the global generator
    # Ray counts the callbacks for its telemetry, and imports MLflow for that: seconds before the first trial.
    internal("telemetry").tag_callbacks = lambda callbacks: False
    # Signals are ours to handle: Ray's handler of SIGUSR1 would end the job as if it were through.
    internal("tune")._setup_signal_catching = threading.Event
    events = TuneCallback(searcher.by_id, spec, storage, stopping, listeners, tell)

    def break_off(error: Exception) -> None:
        internal_errors.note("the control loop", error)
        stopping.give_up(internal_errors.reason)

    walls = {"fail": staticmethod(events.broken), "break_off": staticmethod(break_off)}
    internal("tune").TuneController = type("GuardedController", (Controller,), walls)
    try:
        # tune.run and not tune.Tuner: that one pickles all of this for a restore that is not ours.
        tune.run(
            _trainable(spec, user_mlflow, user_folder),
            name=job,
            storage_path=storage,
            resources_per_trial={"cpu": share.cpu, "gpu": share.gpu},
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,  # until the supply is used up
            reuse_actors=True,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
            stop=_Stop(stopping),
            callbacks=[events],
            raise_on_failed_trial=False,
            max_failures=spec.retry.lost,  # one that fails of itself reports that, and its worker lives on
            verbose=0,
        )
    except KeyboardInterrupt:
        gc.disable()  # until `connection.disconnect`: to let go of Ray's references is to ask a Ray that may be gone
        events.on_experiment_end([])  # which Ray does not come to
        raise
    finally:
        generator.forget_unbegun()


def _trainable(spec: ExperimentSpec, user_mlflow: UserMlflow, user_folder: UserFolder | None) -> Any:
    """What runs on the workers, and where they find the user's own code, if the trial needs it."""
    trainable = run_target if spec.trial.is_function else train_trial
    # Not with each trial's payload: that is written to files, and the address of the store may hold a password.
    return (
        tune.with_parameters(trainable, user_folder=user_folder, user_mlflow=user_mlflow) if user_folder else trainable
    )


def test_on_cluster(
    source: str, targets: Sequence[str], share: TrialResources, user_folder: UserFolder | None
) -> tuple[dict[str, float], dict[str, list[list[int]]]]:
    """`test` in a worker with a trial's resources: on a cluster the driver may have no data and no GPU."""
    remote = ray.remote(num_cpus=share.cpu, num_gpus=share.gpu)(test)
    measured, confusion = ray.get(remote.remote(source, share.threads, share.gpu > 0, targets, user_folder))
    return measured, confusion
