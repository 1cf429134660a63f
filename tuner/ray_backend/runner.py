"""The run of a job's trials on Ray Tune: which trial is next, and when to stop."""

import gc
import json
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import ray
from ray import tune
from ray.tune.search import Searcher as RaySearcher

from tuner.config_keys import Assignment
from tuner.ray_backend.callback import TuneCallback
from tuner.ray_backend.cluster.resources import TrialResources
from tuner.ray_backend.fork_server import starting
from tuner.ray_backend.guards import InternalErrors
from tuner.ray_backend.host.proxy import train_hosted
from tuner.ray_backend.internals import internal
from tuner.ray_backend.schedulers import Mutating, Payload, build_scheduler
from tuner.ray_backend.tune_internals import Controller, remembering
from tuner.ray_backend.worker.entry import Sent
from tuner.ray_backend.worker.trainable import run_target, train_trial
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.spec.experiment import ExperimentSpec
from tuner.storage.filesystem import below
from tuner.tracking.user_mlflow import UserMlflow
from tuner.train.trial_base import AnyTrial
from tuner.trials.callback import TrialCallback
from tuner.trials.generator import TrialGenerator
from tuner.trials.layout import TEACHER, folder_name
from tuner.trials.stopping import StoppingCriteria
from tuner.trials.trial import Trial

T = TypeVar("T")

_NAME = "name"
"""Key of the payload: the name of Ray's trial and of its folder."""


def _name(trial: Any) -> str:
    """Return the name of Ray's trial. It is a plain function because Ray copies and pickles it with each trial."""
    return str(trial.config[_NAME])


class _Stop(tune.Stopper):  # type: ignore[misc]
    """Ray Tune's stopper that follows the job's `StoppingCriteria`."""

    def __init__(self, stopping: StoppingCriteria) -> None:
        self._stopping = stopping

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False  # no single trial is ended here

    def stop_all(self) -> bool:
        return self._stopping.is_due()


class _GeneratedTrials(RaySearcher):  # type: ignore[misc]
    """Ray Tune's searcher that suggests the generator's trials, and maps Ray's trials to the driver's."""

    def __init__(self, generator: TrialGenerator, payload: Payload, internal_errors: InternalErrors) -> None:
        super().__init__()
        self._internal_errors = internal_errors
        self._is_broken = False
        self._generator = generator
        self._payload = payload
        self.by_id: dict[str, Trial] = {}
        """The driver's trial by the id of Ray's trial."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        trial = self._next()
        if trial is None:
            # "Finished" while trials wait for each other would end the workers that they wait for.
            is_over = all(ours.ended is not None for ours in self._generator.trials)
            return str(RaySearcher.FINISHED) if is_over else None
        self.by_id[trial_id] = trial
        name = folder_name(trial.number, trial.resumed)
        return self._payload(trial.config, trial.assignment) | {_NAME: name}

    def _next(self) -> Trial | None:
        """Return the next trial; None after the searcher has raised, since its state may be wrong."""
        try:
            return None if self._is_broken else self._generator.next()
        except Exception as error:
            self._is_broken = True
            self._internal_errors.note("the search", error)
            return None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: `TuneCallback` calls the generator with the trial's status."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the journal has the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: a job is resumed from the journal."""


def end_running(trials: Sequence[Trial], reason: str, listeners: Sequence[TrialCallback]) -> None:
    """End the trials that still run, or that wait to be resumed, as interrupted, and call the callbacks."""
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
    """Run trials on Ray Tune until the generator has no more and all have ended, or until `stopping` ends the job.

    Args:
        spec: The experiment.
        generator: The generator of trials.
        share: The resources of each trial.
        storage: The folder or URI that contains the job's folder.
        job: The name of the job's folder.
        stopping: The stopping criteria.
        listeners: The callbacks.
        user_mlflow: Where code of the user's own logs if it uses MLflow itself.
        internal_errors: Where errors of tuner itself are noted.
        user_folder: Where workers find code of the user's own; None if they need none.
    """
    objective = spec.objective

    def payload(config: AnyTrial, assignment: Assignment) -> dict[str, Any]:
        task = {
            "trial": config.model_dump(mode="json"),
            "objective": objective.model_dump(),
            "objectives": [each.metric for each in spec.objectives],
            "costly": spec.costly_metrics,
            "threads": share.threads,
            "cpu": share.cpu,
            "gpu": share.gpu,
            "ranks": share.ranks,
            "teacher": below(storage, job, TEACHER),
            "at_once": max(1, share.slots),
            "halves": spec.retry.out_of_memory == "halve_batch",
            "host": {"job": job, "fork_server": starting.address()},
            "timeout": spec.trial_timeout,
            "measures": spec.resources.gpu == "auto",
            # In a population a trial waits for its report: a copy must start from the state that Ray has seen.
            "beside": not spec.scheduler.mutates,
        }
        # Ray sends the config back with each report and flattens it twice: JSON text is a single value.
        config_of_trial: dict[str, Any] = {"task": json.dumps(task)}
        if spec.scheduler.mutates:  # the values that the scheduler perturbs
            config_of_trial["units"] = {name: spec.space[name].unit(value) for name, value in assignment.items()}
        return config_of_trial

    searcher = _GeneratedTrials(generator, payload, internal_errors)
    scheduler = build_scheduler(spec, searcher.by_id, generator.trials, payload, storage, listeners)
    tell = scheduler.tell if isinstance(scheduler, Mutating) else lambda: None
    length = spec.trial.length
    # By default Ray prepares one trial at a time for a searcher: the second worker would wait for the first.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(share.ahead, spec.scheduler.ahead(length, generator.total)))
    np.random.seed(spec.search.seed % 2**32)  # Ray's ASHA deals brackets from the global generator
    # Ray counts the callbacks for its telemetry, and imports MLflow for that: seconds before the first trial.
    internal("telemetry").tag_callbacks = lambda callbacks: False
    # tuner handles the signals: Ray's handler of SIGUSR1 would end the job as if it had completed.
    internal("tune")._setup_signal_catching = threading.Event
    # A trial in a host may wait for its place: only its proxy knows since when it has trained.
    watches = not share.is_hosted
    events = TuneCallback(searcher.by_id, spec, storage, stopping, listeners, tell, watches=watches)

    def break_off(error: Exception) -> None:
        internal_errors.note("the control loop", error)
        stopping.give_up(internal_errors.reason)

    handlers = {"fail": staticmethod(events.fail_report), "break_off": staticmethod(break_off)}
    internal("tune").TuneController = type("GuardedController", (Controller,), handlers)
    try:
        with remembering():
            # Not tune.Tuner, which would pickle all of this for a restore that is not used.
            tune.run(
                _trainable(spec, share, user_mlflow, user_folder),
                name=job,
                storage_path=storage,
                resources_per_trial={"cpu": share.cpu, "gpu": share.gpu},
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1,  # until the generator has no more
                reuse_actors=True,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
                stop=_Stop(stopping),
                callbacks=[events],
                raise_on_failed_trial=False,
                max_failures=spec.retry.lost,  # lost workers: a trial that fails reports that, and its worker continues
                verbose=0,
            )
    except KeyboardInterrupt:
        gc.disable()  # until `connection.disconnect`: freeing Ray's references calls a Ray that may have ended
        events.on_experiment_end([])  # Ray does not call it after an interrupt
        raise
    finally:
        generator.forget_unbegun()


def _trainable(
    spec: ExperimentSpec, share: TrialResources, user_mlflow: UserMlflow, user_folder: UserFolder | None
) -> Sent:
    """Return the function that runs on the workers, with the folder of the user's own code if the trial needs it."""
    if share.is_hosted:
        return Sent(train_hosted)
    # Not in each trial's payload: Ray writes that to files, and the store's URI may contain a password.
    given = {"user_folder": user_folder, "user_mlflow": user_mlflow} if user_folder else {}
    return Sent(run_target if spec.trial.is_function else train_trial, **given)


def call_on_cluster(
    function: Callable[[str, int, bool, Sequence[str], UserFolder | None], T],
    source: str,
    targets: Sequence[str],
    share: TrialResources,
    user_folder: UserFolder | None,
) -> T:
    """Call `test` or `look_at` in a worker with a trial's resources: the driver may have no data and no GPU."""
    remote = ray.remote(num_cpus=share.cpu, num_gpus=share.gpu)(function)
    returned: T = ray.get(remote.remote(source, share.threads, share.gpu > 0, targets, user_folder))
    return returned
