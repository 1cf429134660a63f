"""The Ray Tune trainable: it wraps `train.fit` and runs on a worker."""

import json
import logging
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune

from tuner import user_code
from tuner.error_text import summary_of, traceback_of
from tuner.errors import Problem
from tuner.objectives import Objective
from tuner.ray_backend.internals import internal
from tuner.ray_backend.worker import output_log, system_metrics
from tuner.ray_backend.worker.async_checkpoint import AsyncWork
from tuner.ray_backend.worker.checkpoints import latest_first
from tuner.ray_backend.worker.function_trial import Stopped, run_function, seed_generators
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.report_keys import DAMAGED, REASON, STATUS, SYSTEM, TIME, TRACEBACK
from tuner.storage import temporary
from tuner.storage.disk_full import FULL, is_full
from tuner.tracking.user_mlflow import UserMlflow
from tuner.train.checkpoint import Damaged, Save, read_model, read_trial
from tuner.train.device import keep_freed_memory, trial_device, use_threads
from tuner.train.evaluation import Diverged, predict
from tuner.train.loop import fit
from tuner.train.out_of_memory import OUT_OF_MEMORY, is_out_of_memory, release
from tuner.train.trial_config import TrialConfig
from tuner.trials.layout import first_folder, number_of
from tuner.trials.output_files import FILE

_LAST_BATCH = "10"
"""Seconds that Ray gives a trial that is ended, before it takes another worker for the next: one batch, or a look at
the validation set."""


def train_trial(
    payload: dict[str, Any], user_folder: UserFolder | None = None, user_mlflow: UserMlflow | None = None
) -> None:
    """Train one trial and report each of its epochs with a checkpoint.

    A trial that fails says so in its last report instead of raising: Ray would end the worker, and the next trial would
    pay for a new one.

    Args:
        payload: ``task``: as JSON ``trial`` and ``objective``, ``threads`` to compute on, ``gpu``: whether it has one,
            ``halves``: whether it is tried again with half the batch where the memory is not enough, ``beside``:
            whether it trains on while its last epoch is saved and reported.
        user_folder: Where the user's own code is; None where the trial needs none.
        user_mlflow: Where that code logs, if it uses MLflow itself; None where there is none.
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
    untold: dict[str, Any] = {}
    _telling_how_it_ends(lambda: _within_memory(task, untold), untold)


def run_target(payload: dict[str, Any], user_folder: UserFolder, user_mlflow: UserMlflow) -> None:
    """Call a Ray Tune function of the user's own: Ray gets the numbers of its reports, and its checkpoints as they are.

    Args:
        payload: As for `train_trial`.
        user_folder: Where the function is.
        user_mlflow: Where it logs, if it uses MLflow itself.
    """
    task = json.loads(payload["task"])
    trial = task["trial"]
    user_mlflow.enter(_number())
    user_folder.enter()
    temporary.shorten_sockets()
    use_threads(task["threads"])
    seed_generators(trial["seed"])
    untold: dict[str, Any] = {}

    def call() -> str:
        function = user_code.resolve(trial["target"])
        run_function(function, trial["config"], task["objectives"], untold)
        return ""

    _telling_how_it_ends(call, untold)


def _number() -> int:
    """The number of the trial that this worker trains."""
    return number_of(tune.get_context().get_trial_name())


def _telling_how_it_ends(train: Callable[[], str], untold: Mapping[str, Any] | None = None) -> None:
    """Call `train`, which returns why it ended early, and tell the driver in a last report how it ended.

    Args:
        train: What is called.
        untold: What else there is to tell, where no report has told it.
    """
    last: dict[str, Any]
    try:
        with _output():
            last = {STATUS: "completed", REASON: _showing_what_it_raises(train)}
    except Diverged as error:
        last = {STATUS: "diverged", REASON: str(error)}
    except Stopped:
        raise
    except SystemExit as leaving:
        last = {STATUS: "failed", REASON: _status_of(leaving), TRACEBACK: traceback_of(leaving)}
    except BaseException as error:  # `KeyboardInterrupt`, too, which code of the user's own may raise
        last = {STATUS: "failed", REASON: summary_of(error), TRACEBACK: traceback_of(error)}
        if is_out_of_memory(error):
            last[REASON] = OUT_OF_MEMORY
        elif is_full(error):  # which is no fault of this configuration: it goes on where there is room
            last = {STATUS: "interrupted", REASON: FULL}
    if last[REASON] == OUT_OF_MEMORY:  # now that the error, and with it what it held, is gone
        release()
    tune.report({**last, **(untold or {})})


def _status_of(leaving: SystemExit) -> str:
    """Why a program has left: the status that it gave, or the text."""
    code = leaving.code
    return f"it left with exit status {code or 0}" if isinstance(code, int | None) else summary_of(leaving)


def _output() -> AbstractContextManager[object]:
    """The log of what this trial prints."""
    session = internal("get_session")()
    if session is None:
        return nullcontext()
    logging.getLogger("ray.train._internal.storage").setLevel(logging.WARNING)  # a line for each checkpoint
    folder = first_folder(session.storage.trial_fs_path)
    return output_log.OutputLog(session.storage.storage_filesystem, f"{folder}/{FILE}")


def _showing_what_it_raises(train: Callable[[], str]) -> str:
    """Call `train`; its traceback is part of what it prints."""
    try:
        return train()
    except Stopped:
        raise
    except BaseException:
        traceback.print_exc()
        raise


def _within_memory(task: dict[str, Any], untold: dict[str, Any]) -> str:
    """Train with batches whole, or in as many parts as it takes where that is asked for."""
    most = task["trial"]["data"]["batch_size"] if task["halves"] else 1
    parts = 1
    while True:
        try:
            return _go_on(task, untold, parts)
        except Exception as error:
            if parts >= most or not is_out_of_memory(error):
                raise
        release()
        parts = min(2 * parts, most)


def _go_on(task: dict[str, Any], untold: dict[str, Any], parts: int) -> str:
    """Train from the latest checkpoint that can be read, or from the beginning. Returns why it ended early."""
    config = TrialConfig.model_validate(task["trial"])
    objective = Objective.model_validate(task["objective"])
    device = trial_device(task["gpu"])

    def report(metrics: dict[str, Any], save: Save) -> None:
        # Ray counts reports, and a trial may have gone back from where it was.
        told = {**metrics, SYSTEM: system_metrics.sample(), TIME: metrics["epoch"], **untold}
        untold.clear()
        if task["beside"]:
            beside.finish()  # before there are two copies
            beside.begin(partial(_report, told, save.snapshot()))
        else:
            _report(told, save)

    with AsyncWork() as beside:
        train = partial(fit, config, objective, report, before_batch=beside.look, device=device, micro_batches=parts)
        latest = tune.get_checkpoint()
        for checkpoint in latest_first(latest) if latest is not None else ():
            try:
                with _folder_of(checkpoint) as folder:
                    return train(resume=folder)
            except Damaged as error:
                if is_out_of_memory(error):  # which is not its fault
                    raise
                untold.setdefault(DAMAGED, {})[checkpoint.path] = error.why
        return train()


def _report(told: dict[str, Any], save: Save) -> None:
    with temporary.folder() as folder:
        save(folder)
        try:
            tune.report(told, checkpoint=tune.Checkpoint.from_directory(folder))
        except SystemExit:
            raise Stopped from None


@contextmanager
def _folder_of(checkpoint: Any) -> Iterator[Path]:
    """The folder of a checkpoint, fetched where it is not on this machine.

    Raises:
        Damaged: There is none.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(checkpoint.as_directory())
        except FileNotFoundError as error:
            raise Damaged(Problem(f"is no checkpoint: {error}", where=checkpoint.path)) from None
        yield Path(folder)


def test(
    source: str, threads: int, has_gpu: bool, targets: Sequence[str], user_folder: UserFolder | None = None
) -> tuple[dict[str, float], dict[str, list[list[int]]]]:
    """A checkpoint measured on its test set.

    Args:
        source: The checkpoint, as Ray stored it.
        threads: How many to compute on.
        has_gpu: Whether it may compute on a GPU.
        targets: The user's own code that the trial needs, by name.
        user_folder: Where that is; None where this process has it already, or needs none.

    Returns:
        The task's metrics as ``test_...``, and the confusion matrix of each target that is a class.

    Raises:
        Damaged: The checkpoint cannot be read.
    """
    if user_folder is not None:
        user_folder.enter()
    use_threads(threads)
    keep_freed_memory()
    with user_code.in_experiment_folder() if targets else nullcontext(), _folder_of(tune.Checkpoint(source)) as folder:
        config, (_, model) = read_trial(folder, targets), read_model(folder, targets)
        device = trial_device(has_gpu)
        outputs, wanted = predict(model.to(device), config.data.load_test().to(device))
    measured = config.task.measure(outputs, wanted)
    return {f"test_{name}": value for name, value in measured.items()}, config.task.confusion(outputs, wanted)
