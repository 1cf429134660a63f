"""The proxy of a trial: what Ray Tune runs in a worker, while the host of the GPU trains."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ray import tune

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
    try:
        with trial_output():
            if _connection is None:
                _connection = starting.connected(**task["host"])
            last = _relayed(_connection, payload["task"])
    except (EOFError, OSError) as error:
        _connection = None
        raise Lost(f"the process that trained it beside others has ended ({type(error).__name__})") from None
    except BaseException:
        if _connection is not None:  # whatever the host still sends is of this trial
            _connection.close()
        _connection = None
        raise
    if last is None:
        raise Stopped
    tune.report(last)


def _relayed(connection: Connection, task: str) -> dict[str, Any] | None:
    """Pass a task on, and on to Ray what the host sends; return the entries of the last report."""
    checkpoints: Iterator[Any] = iter(())
    connection.send((messages.TRAIN, task))
    with ExitStack() as opened:
        while True:
            word, *values = connection.recv()
            opened.close()
            if word == messages.CHECKPOINT:
                if values[0]:
                    latest = tune.get_checkpoint()
                    checkpoints = iter(latest_first(latest) if latest is not None else ())
                connection.send(_next(checkpoints, opened))
            elif word == messages.REPORTED:
                connection.send(_reported(*values))
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


def _reported(values: dict[str, Any], folder: Path | None) -> bool:
    """Report to Ray; return whether the trial is to go on."""
    try:
        tune.report(values, checkpoint=None if folder is None else tune.Checkpoint.from_directory(folder))
    except SystemExit:
        return False
    return True
