"""The training of one trial from a task, whoever scheduled it: its reports, its checkpoints and how it ends."""

import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import ValidationError

from tuner.data.loading.source import LoaderResources
from tuner.error_text import one_line, summary_of, traceback_of
from tuner.errors import UserError, mistakes_in
from tuner.objectives import Objective
from tuner.process.generators import undisturbed
from tuner.process.out_of_memory import DoesNotFit, is_out_of_memory, reason_of, release
from tuner.ray_backend.worker.async_checkpoint import AsyncWork
from tuner.ray_backend.worker.session import Lost, Session, Stopped
from tuner.ray_backend.worker.system_metrics import SystemMetrics
from tuner.report_keys import DAMAGED, REASON, STATUS, SYSTEM, TIME, TRACEBACK
from tuner.storage import temporary
from tuner.storage.disk_full import FULL, is_full
from tuner.train.checkpoint import Damaged, Save
from tuner.train.demands import why_too_little
from tuner.train.device import trial_device
from tuner.train.evaluation import Diverged
from tuner.train.parallel.launch import RankLost, train
from tuner.train.parallel.rank import Training
from tuner.train.trial_config import TrialConfig


def outcome_of(train: Callable[[], str], output: AbstractContextManager[object] | None = None) -> dict[str, Any]:
    """Call `train`, and return the entries of the last report, which say how the trial has ended.

    Args:
        train: Trains, and returns why it ended early; empty if it did not.
        output: Where what is printed meanwhile goes to; None for wherever it goes now.

    Raises:
        Stopped: The trial was stopped, and must not report.
        RankLost: A process of the trial was killed: it goes on like one that loses its worker, which Ray retries.
        Lost: So was what computed it.
    """
    last: dict[str, Any]
    ran_out = False
    try:
        with output or nullcontext():
            last = {STATUS: "completed", REASON: _printing_traceback(train)}
    except Diverged as error:
        last = {STATUS: "diverged", REASON: str(error)}
    except (Stopped, RankLost, Lost):
        raise
    except UserError as error:  # such as an image that cannot be decoded: a traceback would not help
        last = {STATUS: "failed", REASON: one_line(error.in_a_line)}
    except SystemExit as leaving:
        last = {STATUS: "failed", REASON: _status_of(leaving), TRACEBACK: traceback_of(leaving)}
    except BaseException as error:  # also `KeyboardInterrupt`, which code of the user's own may raise
        last = {STATUS: "failed", REASON: summary_of(error), TRACEBACK: traceback_of(error)}
        if ran_out := is_out_of_memory(error):
            last[REASON] = reason_of(error)
        elif is_full(error):  # not a fault of this configuration: --resume continues it
            last = {STATUS: "interrupted", REASON: FULL}
    if ran_out:  # now: until here, the exception kept tensors alive
        release()
    return last


def _status_of(leaving: SystemExit) -> str:
    """Return why code called `sys.exit`: its exit status, or its text."""
    code = leaving.code
    return f"it left with exit status {code or 0}" if isinstance(code, int | None) else summary_of(leaving)


def _printing_traceback(train: Callable[[], str]) -> str:
    """Call `train`; if it raises, print the traceback to the trial's output."""
    try:
        return train()
    except Stopped:
        raise
    except (UserError, RankLost, Lost) as error:
        print(error)
        raise
    except BaseException:
        traceback.print_exc()
        raise


def train_task(
    task: Mapping[str, Any], session: Session, unsent: dict[str, Any], *, fit: Mapping[str, Any] | None = None
) -> str:
    """Train a trial, from the latest checkpoint that can be read or from the beginning.

    If memory runs out and ``halves`` is set, it goes on with batches split into twice as many micro-batches.

    Args:
        task: What `tuner.ray_backend.worker.trainable.train_trial` is given.
        session: Where its reports go.
        unsent: Receives what the next report adds for the driver; what is left in it goes into the last report.
        fit: What `tuner.train.parallel.launch.train` is given to fit with, and how; None for its own.

    Returns:
        Why it ended early; empty if it did not.
    """
    config = _validated(task["trial"])
    least = most = micro_batches = 1
    while True:
        try:
            return _train(config, task, session, unsent, micro_batches, fit or {})
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if task["halves"] and micro_batches == 1:
                least = _smallest_micro_batch(config)
                most = max(1, config.data.images_per_batch // least)
            if micro_batches >= most:
                fewest = least if task["halves"] else 0
                raise DoesNotFit(why_too_little(trial_device(task["gpu"] > 0), fewest)) from error
        release()
        micro_batches = min(2 * micro_batches, most)


def _smallest_micro_batch(config: TrialConfig) -> int:
    """The fewest images that a model can be trained on; 1 for one of the user's own, which is not called here."""
    outputs = config.task.outputs(config.data.targets)
    return 2 if not config.model.user_code and config.model.needs_several(config.data.image, outputs) else 1


def _validated(trial: dict[str, Any]) -> TrialConfig:
    """The trial's configuration; mistakes in it are the user's, whose own model the driver has not run."""
    try:
        with undisturbed():  # a check may build the model
            return TrialConfig.model_validate(trial)
    except ValidationError as error:
        mistakes = mistakes_in(error)
        if not mistakes:
            raise
        raise UserError(*(replace(mistake, key=f"trial.{mistake.key}") for mistake in mistakes)) from None


def _train(
    config: TrialConfig,
    task: Mapping[str, Any],
    session: Session,
    unsent: dict[str, Any],
    micro_batches: int,
    fit: Mapping[str, Any],
) -> str:
    objective = Objective.model_validate(task["objective"])
    device = trial_device(task["gpu"] > 0)

    def report(metrics: dict[str, Any], save: Save) -> None:
        # Ray would count reports, but a resumed trial may report an epoch again.
        values = {**metrics, SYSTEM: system.means(), TIME: metrics["epoch"], **unsent}
        unsent.clear()
        if task["beside"]:
            saving.finish()  # first, so that there are never two snapshots
            saving.begin(partial(_report, session, values, save.snapshot()))
        else:
            _report(session, values, save)

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
        run: Callable[[Training], str] = partial(
            train, report=report, device=device, ranks=ranks, before_batch=saving.look, **fit
        )
        for path, opened in session.checkpoints():
            try:
                with opened as folder:
                    return run(replace(training, resume=folder))
            except Damaged as error:
                if is_out_of_memory(error):  # not the checkpoint's fault
                    raise
                unsent.setdefault(DAMAGED, {})[path] = error.why
        return run(training)


def _report(session: Session, values: dict[str, Any], save: Save) -> None:
    with temporary.folder() as folder:
        save(folder)
        session.report(values, folder)
