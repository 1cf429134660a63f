"""Trials that train at the same time, each in a process of its own, by tuner's loop and without Ray."""

import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty
from typing import Any

from benchmarks.gpu.figures import TimeIsUp
from benchmarks.gpu.memory import Memory
from benchmarks.gpu.record import Epoch
from benchmarks.gpu.setting import Setting

_TO_END = 10.0
"""Seconds of a row that are kept for the end of processes that take too long."""


@dataclass(frozen=True)
class Side:
    """What trainings side by side took.

    Args:
        epochs: All their epochs.
        until_first: Seconds from the start of the first process until all had begun to train.
        host: The most memory of the processes, in bytes.
        card: The most memory of the card that they took, in bytes.
    """

    epochs: list[Epoch]
    until_first: float
    host: int
    card: int


def side_by_side(
    setting: Setting, trials: Sequence[Mapping[str, Any]], environment: Mapping[str, str] | None = None
) -> Side:
    """Train each trial in a process of its own, all at the same time: they wait for each other before they train.

    Args:
        setting: Where they train.
        trials: The section `trial` of each, with its seed.
        environment: More environment variables of the processes.

    Raises:
        RuntimeError: One of them failed.
        TimeIsUp: They took too long.
    """
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(len(trials)), spawn.Queue()
    threads = max(1, setting.cores // len(trials))
    began = time.time()
    with _environment(setting.environment() | dict(environment or {})):
        processes = [
            spawn.Process(target=_train, args=(setting, str(number), dict(trial), threads, barrier, results))
            for number, trial in enumerate(trials)
        ]
        for process in processes:
            process.start()
    try:
        with Memory([process.pid for process in processes if process.pid], setting.visible) as memory:
            found = [_next(setting, results, processes) for _ in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(5)
            process.kill()
    failed = [each for each in found if isinstance(each, str)]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(trials)} processes failed: {failed[0]}")
    epochs = [epoch for each in found if not isinstance(each, str) for epoch in each]
    first = max(each.began for each in epochs if each.number == 1)
    return Side(epochs, first - began, memory.host, memory.card)


def _next(setting: Setting, results: Any, processes: Sequence[Any]) -> list[Epoch] | str:
    """What the next process that ends has measured, or why it failed."""
    while setting.left > _TO_END:
        crashed = [process.exitcode for process in processes if process.exitcode]
        try:
            return results.get(timeout=1)  # type: ignore[no-any-return]
        except Empty:
            if crashed:
                return f"one ended with status {crashed[0]}"
    raise TimeIsUp("the processes were ended before all of them had trained")


def _train(setting: Setting, name: str, trial: dict[str, Any], threads: int, barrier: Any, results: Any) -> None:
    try:
        from benchmarks.gpu.training import train
        from tuner.train.device import use_threads
        from tuner.train.trial_config import TrialConfig

        use_threads(threads)
        epochs: list[Epoch] = []

        def report(metrics: dict[str, Any], save: object) -> None:
            ended = time.time()
            began, speed = ended - metrics["epoch_seconds"], metrics["images_per_second"]
            epochs.append(Epoch(name, metrics["epoch"], began, ended, speed))

        config = TrialConfig.model_validate(trial)
        if not setting.is_tiny:
            _begin_on_card()
        barrier.wait(setting.left)
        train(setting, config, report)
        results.put(epochs)
    except BaseException as error:
        barrier.abort()  # the others do not wait for this one
        results.put(f"{type(error).__name__}: {error}")


def _begin_on_card() -> None:
    import torch

    torch.zeros(1, device="cuda")  # makes the context, which takes seconds


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Have processes that are started meanwhile get these variables, and no others."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
