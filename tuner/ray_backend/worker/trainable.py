"""The Ray Tune trainable: it wraps `train.parallel.launch.train` and runs on a worker."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ray import tune

from tuner import user_code
from tuner.ray_backend.worker.checkpoints import folder_of, latest_first
from tuner.ray_backend.worker.function_trial import run_function, seed_generators
from tuner.ray_backend.worker.output import trial_output
from tuner.ray_backend.worker.session import LAST_BATCH, Stopped
from tuner.ray_backend.worker.training import outcome_of, train_task
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.storage import temporary
from tuner.tracking.user_mlflow import UserMlflow
from tuner.train.device import keep_freed_memory, use_threads
from tuner.trials.layout import number_of


def train_trial(
    payload: dict[str, Any], user_folder: UserFolder | None = None, user_mlflow: UserMlflow | None = None
) -> None:
    """Train one trial and report each of its epochs with a checkpoint.

    A trial that fails does not raise but reports its failure last: Ray would end the worker, and the next trial would
    have to start a new one.

    Args:
        payload: ``task``, a JSON object: ``trial``, ``objective``, ``objectives`` (the names of all), ``costly`` (the
            names of what is measured only on request), ``threads`` (number of CPU threads of each process), ``cpu`` and
            ``gpu`` (cores and GPUs of the trial, or its share of one), ``ranks`` (number of processes that train it
            together, of which this is the first), ``at_once`` (number of trials that run at once), ``teacher``
            (the folder or URI of the teacher, which the trials may have), ``halves`` (whether batches are split into
            micro-batches if memory runs out), ``beside`` (whether it trains the next epoch while the last one is
            saved and reported), and for a trial in a host ``host`` and ``timeout`` (see
            `tuner.ray_backend.host.proxy.train_hosted`) and ``measures`` (whether the host measures how many trials it
            trains at once).
        user_folder: The folder of the user's own code; None if the trial needs none.
        user_mlflow: The run that such code logs to if it uses MLflow itself; None if the trial needs none.
    """
    task = json.loads(payload["task"])
    if user_mlflow is not None:
        user_mlflow.enter(_number())
    if user_folder is not None:
        user_folder.enter()
    keep_freed_memory()
    temporary.clear_up()
    temporary.shorten_sockets()
    use_threads(task["threads"])
    os.environ.update(LAST_BATCH | os.environ)
    unsent: dict[str, Any] = {}
    _report_outcome(lambda: train_task(task, _RaySession(), unsent), unsent)


def run_target(payload: dict[str, Any], user_folder: UserFolder, user_mlflow: UserMlflow) -> None:
    """Call a Ray Tune function of the user's own; pass the numbers of its reports and its checkpoints to Ray.

    Args:
        payload: As for `train_trial`.
        user_folder: The folder of the function.
        user_mlflow: The run that it logs to if it uses MLflow itself.
    """
    task = json.loads(payload["task"])
    trial = task["trial"]
    user_mlflow.enter(_number())
    user_folder.enter()
    temporary.shorten_sockets()
    use_threads(task["threads"])
    seed_generators(trial["seed"])
    unsent: dict[str, Any] = {}

    def call() -> str:
        function = user_code.resolve(trial["target"])
        run_function(function, trial["config"], task["objectives"], unsent)
        return ""

    _report_outcome(call, unsent)


def _number() -> int:
    """Return the number of the trial that this worker trains."""
    return number_of(tune.get_context().get_trial_name())


def _report_outcome(train: Callable[[], str], unsent: Mapping[str, Any] | None = None) -> None:
    """Call `train`, and send the outcome to the driver in a last report.

    Args:
        train: Trains, and returns why it ended early; empty if it did not.
        unsent: Entries for the driver that no report has sent yet.
    """
    last = outcome_of(train, trial_output())
    tune.report({**last, **(unsent or {})})


class _RaySession:
    """The session of a trial that this worker trains."""

    def report(self, values: dict[str, Any], folder: Path | None) -> None:
        checkpoint = None if folder is None else tune.Checkpoint.from_directory(folder)
        try:
            tune.report(values, checkpoint=checkpoint)
        except SystemExit:
            raise Stopped from None

    def checkpoints(self) -> Iterator[tuple[str, AbstractContextManager[Path]]]:
        latest = tune.get_checkpoint()
        for checkpoint in latest_first(latest) if latest is not None else ():
            yield checkpoint.path, folder_of(checkpoint)
