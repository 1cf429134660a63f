"""The training of a trial by several processes: starting the other ranks, training with them, and ending them."""

import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from threading import Lock, Thread
from typing import NoReturn

import torch

from tuner.errors import Problem, UserError
from tuner.process.children import without_main
from tuner.process.out_of_memory import is_out_of_memory
from tuner.storage import temporary
from tuner.train.checkpoint import Damaged
from tuner.train.loop import Report, fit
from tuner.train.parallel import rank as rank_process
from tuner.train.parallel.group import abort, joined
from tuner.train.parallel.rank import DONE, READY, Failure, Surroundings, Training

_IMPORTED = ("torch._dynamo", "sklearn.model_selection")
"""What the first epoch of a process imports, seconds each: optimizers as they are made, and datasets as they are split.
The fork server has it before it forks."""
_NOTICE = 10.0
"""Seconds until a rank whose connections have closed is seen to have ended."""
_LAST = 60.0
"""Seconds that the other ranks have to end after the last epoch."""


class RankLost(Exception):
    """The process of a rank was killed. The trial may resume from its last checkpoint."""


def train(
    training: Training,
    report: Report,
    *,
    device: torch.device,
    ranks: int = 1,
    before_batch: Callable[[], None] | None = None,
    fit: Callable[..., str] = fit,
) -> str:
    """Train one trial to its end by `fit`, in this process and in others of this node, which end with it.

    The other processes have the number of threads, the environment and the user's code of this one. What this one
    raises ends all of them, and what one of them raises ends this one.

    Args:
        training: What is trained.
        report: As for `fit`; it is called in this process alone.
        device: The device of this process; of the others the GPUs that follow, or the CPU, too.
        ranks: Number of processes.
        before_batch: As for `fit`; it is called in this process alone.
        fit: What trains in this process; it takes what `tuner.train.loop.fit` takes.

    Returns:
        As `fit` does.

    Raises:
        RankLost: A process was killed.
        Exception: What `fit` raises, in whichever process.
    """
    config, objective = training.config, training.objective
    here = {} if before_batch is None else {"before_batch": before_batch}
    if ranks == 1:
        return fit(config, objective, report, device=device, **here, **training.arguments())
    devices = devices_of(device, ranks)
    with temporary.folder() as folder, _others(training, devices, folder / "store") as others:
        arguments = training.arguments()
        others.wait_until_ready()
        with joined(0, ranks, folder / "store", devices[0], config.parallel) as group:
            others.watch()
            reason = fit(config, objective, report, device=devices[0], ranks=group, **here, **arguments)
            others.wait_until_done()
        return reason


def devices_of(device: torch.device, ranks: int) -> list[torch.device]:
    """The device of each rank: the GPUs that this process sees, one for each, or the CPU.

    Raises:
        UserError: It sees fewer GPUs.
    """
    if device.type != "cuda":
        return [torch.device("cpu")] * ranks  # torch trains on no other device in several processes
    if torch.cuda.device_count() < ranks:
        message = f"the trial trains in {ranks} processes, one a GPU, and there are {torch.cuda.device_count()} GPUs"
        raise UserError(Problem(message, "resources.gpu", hint="ask for fewer, or for CPU cores alone: gpu: 0"))
    return [torch.device("cuda", number) for number in range(ranks)]


class _Others:
    """The processes of all ranks but the first.

    Args:
        processes: The processes, in the order of the ranks.
        connections: What each one sends.
    """

    def __init__(self, processes: Sequence[BaseProcess], connections: Sequence[Connection]) -> None:
        self._processes = processes
        self._connections = connections
        self._failures: dict[int, Failure] = {}
        self._is_over = False
        self._watcher: Thread | None = None
        self._reading = Lock()

    def wait_until_ready(self) -> None:
        """Wait until all have started: who waits for one that does not come cannot be woken."""
        for number, connection in enumerate(self._connections, start=1):
            if self._received(number, connection) != READY:
                self._raise()

    def watch(self) -> None:
        """From now on, wake this process from what it waits for when one of the others ends."""

        def watch() -> None:
            running = list(self._processes)
            while running:
                wait([process.sentinel for process in running])
                statuses = [self._status(process) for process in running]
                if any(statuses):
                    if not self._is_over:
                        abort()
                    return
                running = [each for each, status in zip(running, statuses, strict=True) if status is None]

        # gloo raises by itself; what a GPU computes with one that is gone never ends.
        if torch.distributed.get_backend() != "gloo":
            self._watcher = Thread(target=watch, name="ranks", daemon=True)
            self._watcher.start()

    def wait_until_done(self) -> None:
        """Wait for the ends of all, which have trained the last epoch."""
        self._is_over = True
        for number, connection in enumerate(self._connections, start=1):
            if not connection.poll(_LAST) or self._received(number, connection) != DONE:
                self._raise()

    def raise_failure(self, error: Exception) -> None:
        """If one of them has failed, of which an error of this process is the consequence, raise what it has raised."""
        if isinstance(error, UserError | RankLost) or is_out_of_memory(error) or not _may_follow(error):
            return
        deadline = time.monotonic() + _NOTICE
        while not self._failures and time.monotonic() < deadline:
            self._collect()
            time.sleep(0.05)
        time.sleep(0.1)  # one that has failed makes the others fail
        self._collect()
        if self._failures:
            self._raise(error)

    def end(self) -> None:
        """End them."""
        self._is_over = True
        for process in self._processes:
            if self._status(process) is None:
                process.kill()  # it may wait for ever, and has nothing to save
        if self._watcher is not None:
            self._watcher.join()
        for process, connection in zip(self._processes, self._connections, strict=True):
            process.join()
            process.close()
            connection.close()

    def _status(self, process: BaseProcess) -> int | None:
        """The exit status of a process; None while it runs. Two threads must not read it at once."""
        with self._reading:
            return process.exitcode

    def _received(self, number: int, connection: Connection) -> object:
        """What a rank sends next; None if it fails instead."""
        try:
            sent = connection.recv()
        except (EOFError, OSError):
            process = self._processes[number - 1]
            wait([process.sentinel], timeout=_NOTICE)
            status = self._status(process)
            self._failures[number] = Failure(number, f"the process of rank {number} {_end_of(status)}")
            return None
        if isinstance(sent, Failure):
            self._failures[number] = sent
            return None
        return sent

    def _collect(self) -> None:
        """Note which have failed."""
        for number, connection in enumerate(self._connections, start=1):
            while number not in self._failures and connection.poll():
                if self._received(number, connection) == DONE:
                    break

    def _raise(self, consequence: Exception | None = None) -> NoReturn:
        """Raise what the rank has raised that failed first."""
        self._collect()
        # One that was killed has noted no time, and was first: the others noticed it.
        failure = min(self._failures.values(), key=lambda each: (not _is_cause(each), each.at))
        if failure.problems:
            raise (Damaged if failure.damaged else UserError)(*failure.problems) from None
        if not failure.traceback:
            raise RankLost(failure.error) from None
        where = f"{failure.error} (in rank {failure.rank})"
        error: Exception = RuntimeError(where)
        if failure.out_of_memory:
            error = MemoryError(where)
        elif failure.disk_error == errno.ENOSPC:
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        error.add_note(failure.traceback)
        raise error from consequence


@contextmanager
def _others(training: Training, devices: Sequence[torch.device], store: Path) -> Iterator[_Others]:
    """Start the processes of the other ranks, and end them after the body."""
    context = multiprocessing.get_context("forkserver")  # a fork of a process with threads may never come to life
    context.set_forkserver_preload([rank_process.__name__, *_IMPORTED])
    surroundings = Surroundings.here()
    started: list[BaseProcess] = []
    connections: list[Connection] = []
    others = _Others(started, connections)
    try:
        for number in range(1, len(devices)):
            receiving, sending = context.Pipe(duplex=False)
            place = (number, len(devices), training, surroundings, devices[number], store, sending, _Descriptor(2))
            process = context.Process(target=rank_process.main, args=place)
            with sending, without_main(), _without_cuda():
                process.start()
            started.append(process)
            connections.append(receiving)
        yield others
    except Exception as error:
        others.raise_failure(error)
        raise
    finally:
        others.end()


@contextmanager
def _without_cuda() -> Iterator[None]:
    """Let a fork server that starts in the body ask for GPUs without beginning with CUDA, which a fork cannot use."""
    name = "PYTORCH_NVML_BASED_CUDA_CHECK"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


class _Descriptor:
    """A file descriptor, as it is sent to a process that is started; there it is what `DupFd` returns."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return _itself, (DupFd(self._number),)


def _itself(value: object) -> object:
    return value


def _may_follow(error: Exception) -> bool:
    """Whether an error may be the consequence of the end of another rank: torch.distributed raises these."""
    return isinstance(error, RuntimeError) or "process group" in str(error)


def _is_cause(failure: Failure) -> bool:
    """Whether a rank has not failed because another one has."""
    return not failure.traceback or not any(word in failure.error.lower() for word in ("gloo", "nccl", "connection"))


def _end_of(status: int | None) -> str:
    """How a process has ended, by its exit status: the negative number of the signal that ended it."""
    if status is not None and -status in set(signal.Signals):
        name = signal.Signals(-status).name
        return f"was ended by {name}" + (": memory may have run out" if -status == signal.SIGKILL else "")
    return f"has ended with the exit status {status}"
