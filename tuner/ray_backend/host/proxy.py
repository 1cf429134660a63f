"""The proxy of a trial: what Ray Tune runs in a worker, while the host of the GPU trains."""

import json
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from ray import tune

from tuner.error_text import summary_of
from tuner.errors import Damaged
from tuner.ray_backend.host import messages, starting
from tuner.ray_backend.worker.checkpoints import folder_of, latest_first
from tuner.ray_backend.worker.output import trial_output
from tuner.ray_backend.worker.session import LAST_BATCH, Lost, Stopped
from tuner.storage import temporary

_connection: Connection | None = None
"""The connection to the host, which this worker keeps for its next trial: the host lives as long as one has one."""


def train_hosted(payload: dict[str, Any]) -> None:
    """Let the host of this worker's GPU train one trial; report its epochs and its outcome.

    Args:
        payload: As for `tuner.ray_backend.worker.trainable.train_trial`; its ``host`` has ``job``, which
            names the host, and ``fork_server``, the address of the server that forks it, empty for none.

    Raises:
        Lost: The host has ended. Ray starts the trial again.
    """
    global _connection
    task = json.loads(payload["task"])
    temporary.clear_up()
    os.environ.update(LAST_BATCH | os.environ)
    with trial_output():
        if _connection is None:
            _connection = starting.connected(**task["host"])
        connection, _connection = _connection, None
        last = _relayed(_Host(connection), payload["task"])
        _connection = connection  # else whatever the host still sends is of this trial
    if last is None:
        raise Stopped
    tune.report(last)


class _Host:
    """The host's end of the connection; what fails with it is lost."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise _lost(error) from None

    def received(self) -> tuple[Any, ...]:
        try:
            received: tuple[Any, ...] = self._connection.recv()
            return received
        except (EOFError, OSError) as error:
            raise _lost(error) from None


def _lost(error: Exception) -> Lost:
    return Lost(f"the process that trained it beside others has ended ({type(error).__name__})")


def _relayed(host: _Host, task: str) -> dict[str, Any] | None:
    """Pass a task on, and on to Ray what the host sends; return the entries of the last report."""
    checkpoints: Iterator[Any] = iter(())
    host.send((messages.TRAIN, task))
    with ExitStack() as opened:
        while True:
            word, *values = host.received()
            if word != messages.PRINTED:  # a trial may print before it reads the checkpoint
                opened.close()
            if word == messages.CHECKPOINT:
                if values[0]:
                    latest = tune.get_checkpoint()
                    checkpoints = iter(latest_first(latest) if latest is not None else ())
                host.send(_next(checkpoints, opened))
            elif word == messages.REPORTED:
                host.send(_reported(*values))
            elif word == messages.PRINTED:
                sys.stdout.write(*values)
            else:
                assert word == messages.ENDED, word
                last: dict[str, Any] | None = values[0]
                return last


def _next(checkpoints: Iterator[Any], opened: ExitStack) -> tuple[str | None, Path | None, str]:
    """The path of the next checkpoint, its folder, which lasts until `opened` is closed, and why there is none."""
    checkpoint = next(checkpoints, None)
    if checkpoint is None:
        return None, None, ""
    try:
        return checkpoint.path, opened.enter_context(folder_of(checkpoint)), ""
    except Damaged as error:
        return checkpoint.path, None, error.why


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
