"""The proxy of a trial: what Ray Tune runs in a worker, while the host of the GPU trains."""

import json
import os
import pickle
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, cast

from ray import tune

from tuner.error_text import summary_of
from tuner.errors import Damaged
from tuner.ray_backend.host import messages, starting
from tuner.ray_backend.host.link import Link, Silent
from tuner.ray_backend.worker.checkpoints import folder_of, latest_first
from tuner.ray_backend.worker.output import trial_output
from tuner.ray_backend.worker.session import LAST_BATCH, Stopped, hung
from tuner.report_keys import REASON, STATUS
from tuner.storage import temporary

_link: Link | None = None
"""The connection to the host, which this worker keeps for its next trial: the host lives as long as one has one."""


def train_hosted(payload: dict[str, Any]) -> None:
    """Let the host of this worker's GPU train one trial; report its epochs and its outcome.

    Args:
        payload: As for `tuner.ray_backend.worker.trainable.train_trial`; its ``host`` has ``job``, which
            names the host, and ``fork_server``, the address of the server that forks it, empty for none. ``timeout``
            is how many seconds it may train without a report, None for as long as it will.

    Raises:
        Lost: The host has ended. Ray starts the trial again.
    """
    global _link
    task = json.loads(payload["task"])
    temporary.clear_up()
    os.environ.update(LAST_BATCH | os.environ)
    with trial_output():
        link, _link = _link, None
        if link is None or not link.is_idle:  # one that has ended between two trials costs none of them
            link = starting.connected(**task["host"])
        try:
            last = _relayed(link, payload["task"], task["timeout"])
            _link = link
        except Silent:
            last = {STATUS: "failed", REASON: hung(task["timeout"])}
        finally:
            if _link is None:  # whatever the host still sends is of this trial
                link.close()
    if last is None:
        raise Stopped
    tune.report(last)


def _relayed(host: Link, task: str, timeout: float | None = None) -> dict[str, Any] | None:
    """Pass a task on, and on to Ray what the host sends; return the entries of the last report.

    Raises:
        Silent: It has trained for `timeout` seconds without a report. While it waits for its place they do not count.
    """
    checkpoints: Iterator[Any] = iter(())
    due: float | None = None
    host.send((messages.TRAIN, task))
    with ExitStack() as opened:
        while True:
            word, *values = host.received(None if due is None else max(0.0, due - time.monotonic()))
            if word in (messages.CHECKPOINT, messages.REPORTED, messages.ENDED):
                opened.close()
            if word == messages.CHECKPOINT:
                if values[0]:
                    checkpoints = _checkpoints()
                host.send(_next(checkpoints, opened))
            elif word == messages.REPORTED:
                host.send(_reported(*values))
            elif word == messages.PRINTED:
                with suppress(OSError):  # no print fails a trial
                    sys.stdout.write(*values)
            elif word == messages.ENDED:
                last: dict[str, Any] | None = values[0]
                return last
            if word == messages.WAITS:
                due = None
            elif word in (messages.BEGINS, messages.REPORTED) and timeout is not None:
                due = time.monotonic() + timeout


def _checkpoints() -> Iterator[Any]:
    latest = tune.get_checkpoint()
    yield from latest_first(latest) if latest is not None else ()


def _next(checkpoints: Iterator[Any], opened: ExitStack) -> tuple[str | None, Path | None, str] | Exception:
    """The path of the next checkpoint, its folder, which lasts until `opened` is closed, and why there is none."""
    path = None
    try:
        checkpoint = next(checkpoints, None)
        if checkpoint is None:
            return None, None, ""
        path = checkpoint.path
        return path, opened.enter_context(folder_of(checkpoint)), ""
    except Damaged as error:
        return path, None, error.why
    except Exception as error:  # such as a storage that does not answer
        return _sendable(error)


def _reported(values: dict[str, Any], folder: Path | None) -> bool | Exception:
    """Report to Ray; return whether the trial is to go on, or the error of the report."""
    try:
        tune.report(values, checkpoint=None if folder is None else tune.Checkpoint.from_directory(folder))
    except SystemExit:
        return False
    except Exception as error:  # such as a full storage: in the host it ends the trial as it would here
        return _sendable(error)
    return True


def _sendable(error: Exception) -> Exception:
    try:
        return cast(Exception, pickle.loads(pickle.dumps(error)))
    except Exception:
        return RuntimeError(summary_of(error))
