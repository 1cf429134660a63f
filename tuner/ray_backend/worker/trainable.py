"""The Ray Tune trainable: it wraps `train.parallel.launch.train` and runs on a worker."""

import json
import logging
import os
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import ValidationError
from ray import tune

from tuner import user_code
from tuner.data.loading.source import LoaderResources
from tuner.error_text import one_line, summary_of, traceback_of
from tuner.errors import UserError, mistakes_in
from tuner.objectives import Objective
from tuner.process.out_of_memory import OUT_OF_MEMORY, is_out_of_memory, release
from tuner.ray_backend.internals import internal
from tuner.ray_backend.worker import output_log
from tuner.ray_backend.worker.async_checkpoint import AsyncWork
from tuner.ray_backend.worker.checkpoints import folder_of, latest_first
from tuner.ray_backend.worker.function_trial import Stopped, run_function, seed_generators
from tuner.ray_backend.worker.system_metrics import SystemMetrics
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.report_keys import DAMAGED, REASON, STATUS, SYSTEM, TIME, TRACEBACK
from tuner.storage import temporary
from tuner.storage.disk_full import FULL, is_full
from tuner.tracking.user_mlflow import UserMlflow
from tuner.train.checkpoint import Damaged, Save
from tuner.train.device import keep_freed_memory, trial_device, use_threads
from tuner.train.evaluation import Diverged
from tuner.train.parallel.launch import RankLost, train
from tuner.train.parallel.rank import Training
from tuner.train.trial_config import TrialConfig
from tuner.trials.layout import first_folder, number_of
from tuner.trials.output_files import FILE

_LAST_BATCH = "10"
"""Seconds that Ray waits for a trial that it ends, before it starts another worker for the next trial: enough for one
batch or one validation."""


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
            micro-batches if memory runs out) and ``beside`` (whether it trains the next epoch while the last one is
            saved and reported).
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
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", _LAST_BATCH)
    unsent: dict[str, Any] = {}
    _report_outcome(lambda: _train_within_memory(task, unsent), unsent)


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
    last: dict[str, Any]
    try:
        with _output():
            last = {STATUS: "completed", REASON: _printing_traceback(train)}
    except Diverged as error:
        last = {STATUS: "diverged", REASON: str(error)}
    except (Stopped, RankLost):  # a trial that loses a process goes on like one that loses its worker: Ray retries it
        raise
    except UserError as error:  # such as an image that cannot be decoded: a traceback would not help
        last = {STATUS: "failed", REASON: one_line(error.in_a_line)}
    except SystemExit as leaving:
        last = {STATUS: "failed", REASON: _status_of(leaving), TRACEBACK: traceback_of(leaving)}
    except BaseException as error:  # also `KeyboardInterrupt`, which code of the user's own may raise
        last = {STATUS: "failed", REASON: summary_of(error), TRACEBACK: traceback_of(error)}
        if is_out_of_memory(error):
            last[REASON] = OUT_OF_MEMORY
        elif is_full(error):  # not a fault of this configuration: --resume continues it
            last = {STATUS: "interrupted", REASON: FULL}
    if last[REASON] == OUT_OF_MEMORY:  # now: until here, the exception kept tensors alive
        release()
    tune.report({**last, **(unsent or {})})


def _status_of(leaving: SystemExit) -> str:
    """Return why code called `sys.exit`: its exit status, or its text."""
    code = leaving.code
    return f"it left with exit status {code or 0}" if isinstance(code, int | None) else summary_of(leaving)


def _output() -> AbstractContextManager[object]:
    """Return the log of this trial's output; outside of Ray, a context that does nothing."""
    session = internal("get_session")()
    if session is None:
        return nullcontext()
    logging.getLogger("ray.train._internal.storage").setLevel(logging.WARNING)  # a line for each checkpoint
    folder = first_folder(session.storage.trial_fs_path)
    return output_log.OutputLog(session.storage.storage_filesystem, f"{folder}/{FILE}")


def _printing_traceback(train: Callable[[], str]) -> str:
    """Call `train`; if it raises, print the traceback to the trial's output."""
    try:
        return train()
    except Stopped:
        raise
    except (UserError, RankLost) as error:
        print(error)
        raise
    except BaseException:
        traceback.print_exc()
        raise


def _train_within_memory(task: dict[str, Any], unsent: dict[str, Any]) -> str:
    """Train; if memory runs out and ``halves`` is set, split batches into twice as many micro-batches and resume."""
    config = _validated(task["trial"])
    most = config.data.images_per_batch if task["halves"] else 1
    micro_batches = 1
    while True:
        try:
            return _train(config, task, unsent, micro_batches)
        except Exception as error:
            if micro_batches >= most or not is_out_of_memory(error):
                raise
        release()
        micro_batches = min(2 * micro_batches, most)


def _validated(trial: dict[str, Any]) -> TrialConfig:
    """The trial's configuration; mistakes in it are the user's, whose own model the driver has not run."""
    try:
        return TrialConfig.model_validate(trial)
    except ValidationError as error:
        mistakes = mistakes_in(error)
        if not mistakes:
            raise
        raise UserError(*(replace(mistake, key=f"trial.{mistake.key}") for mistake in mistakes)) from None


def _train(config: TrialConfig, task: dict[str, Any], unsent: dict[str, Any], micro_batches: int) -> str:
    """Train from the latest checkpoint that can be read, or from the beginning; return why it ended early."""
    objective = Objective.model_validate(task["objective"])
    device = trial_device(task["gpu"] > 0)

    def report(metrics: dict[str, Any], save: Save) -> None:
        # Ray would count reports, but a resumed trial may report an epoch again.
        values = {**metrics, SYSTEM: system.means(), TIME: metrics["epoch"], **unsent}
        unsent.clear()
        if task["beside"]:
            saving.finish()  # first, so that there are never two snapshots
            saving.begin(partial(_report, values, save.snapshot()))
        else:
            _report(values, save)

    with SystemMetrics() as system, AsyncWork() as saving:
        ranks = task["ranks"]
        training = Training(
            config,
            objective,
            micro_batches=micro_batches,
            loading=LoaderResources.of(task["cpu"], task["gpu"], task["at_once"], ranks),
            teacher=task["teacher"],
            others=tuple(task["objectives"][1:]),
            costly=tuple(task["costly"]),
        )
        run = partial(train, report=report, device=device, ranks=ranks, before_batch=saving.look)
        latest = tune.get_checkpoint()
        for checkpoint in latest_first(latest) if latest is not None else ():
            try:
                with folder_of(checkpoint) as folder:
                    return run(replace(training, resume=folder))
            except Damaged as error:
                if is_out_of_memory(error):  # not the checkpoint's fault
                    raise
                unsent.setdefault(DAMAGED, {})[checkpoint.path] = error.why
        return run(training)


def _report(values: dict[str, Any], save: Save) -> None:
    with temporary.folder() as folder:
        save(folder)
        try:
            tune.report(values, checkpoint=tune.Checkpoint.from_directory(folder))
        except SystemExit:
            raise Stopped from None
