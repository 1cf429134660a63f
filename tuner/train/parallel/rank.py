"""What the process of another rank does: it trains as the first one does, and reports nothing but its failure."""

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from tuner import user_code
from tuner.data.loading.source import ALONE, LoaderResources
from tuner.error_text import summary_of, traceback_of
from tuner.errors import Problem, UserError
from tuner.objectives import Objective
from tuner.process.children import end_with_parent
from tuner.process.out_of_memory import is_out_of_memory
from tuner.train.checkpoint import Damaged
from tuner.train.device import keep_freed_memory, use_threads
from tuner.train.loop import fit
from tuner.train.parallel.group import joined
from tuner.train.teacher import load_teacher
from tuner.train.trial_config import TrialConfig

READY, DONE = "ready", "done"
"""What a rank sends before it waits for the others, and after its last epoch."""


@dataclass(frozen=True)
class Training:
    """The arguments of `fit` that are the same in all ranks, and can be sent.

    Args:
        config: The trial.
        objective: See `fit`.
        resume: See `fit`; a folder that all processes of this node can read.
        micro_batches: See `fit`.
        loading: See `fit`.
        teacher: The folder or URI of the teacher, for trials that have one.
        others: See `fit`.
        costly: See `fit`.
    """

    config: TrialConfig
    objective: Objective
    resume: Path | None = None
    micro_batches: int = 1
    loading: LoaderResources = ALONE
    teacher: str = ""
    others: tuple[str, ...] = ()
    costly: tuple[str, ...] = ()

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `fit`, for which the teacher is loaded."""
        resume = {} if self.resume is None else {"resume": self.resume}
        return {
            **resume,
            "micro_batches": self.micro_batches,
            "loading": self.loading,
            "teacher": load_teacher(self.teacher, self.config),
            "others": self.others,
            "costly": self.costly,
        }


@dataclass(frozen=True)
class Surroundings:
    """What a process of a rank has of the one that started it, beside what it trains.

    Args:
        environment: The environment variables.
        folder: The working directory.
        code: Where code of the user's own is, as `tuner.user_code.searched` returns it.
        threads: Number of CPU threads.
    """

    environment: Mapping[str, str]
    folder: Path
    code: tuple[tuple[Path, ...], tuple[Path, ...]]
    threads: int

    @classmethod
    def here(cls) -> "Surroundings":
        """Those of this process."""
        return cls(dict(os.environ), Path.cwd(), user_code.searched(), torch.get_num_threads())

    def enter(self) -> None:
        """Have them in this process from now on."""
        os.environ.clear()
        os.environ.update(self.environment)
        first, last = self.code
        for folder in reversed(first):
            user_code.add_folder(folder, *last)
        os.chdir(self.folder)
        use_threads(self.threads)
        keep_freed_memory()


@dataclass(frozen=True)
class Failure:
    """Why a rank has ended before the training did.

    Args:
        rank: Its number.
        error: Its exception, in a line.
        traceback: The traceback.
        out_of_memory: Whether memory ran out.
        problems: What is wrong with what the user gave, if that is it.
        damaged: Whether the checkpoint cannot be read.
        disk_error: The number of an error of the system; 0 for none.
        at: When, in seconds of the clock that all processes of a machine share.
    """

    rank: int
    error: str
    traceback: str = ""
    out_of_memory: bool = False
    problems: tuple[Problem, ...] = ()
    damaged: bool = False
    disk_error: int = 0
    at: float = 0.0

    @classmethod
    def of(cls, rank: int, error: BaseException) -> "Failure":
        """The failure of a rank that has raised an exception."""
        return cls(
            rank,
            summary_of(error),
            traceback_of(error),
            is_out_of_memory(error),
            tuple(error.problems) if isinstance(error, UserError) else (),
            isinstance(error, Damaged),
            (error.errno or 0) if isinstance(error, OSError) else 0,
            time.monotonic(),
        )


def main(
    rank: int,
    ranks: int,
    training: Training,
    surroundings: Surroundings,
    device: torch.device,
    store: Path,
    first: Connection,
    errors: Any,
) -> None:
    """Train as one of the ranks.

    Args:
        rank: The number of this one.
        ranks: How many there are.
        training: What is trained.
        surroundings: What this process is to have of the one that started it.
        device: The device of this one.
        store: The file by which the ranks find each other.
        first: Where `READY`, and `DONE` or a `Failure`, are sent to.
        errors: The standard error of the process that started this one, as it is sent to another process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the first rank ends this process
    end_with_parent()
    descriptor = errors.detach()
    os.dup2(descriptor, 2)
    os.close(descriptor)
    with Path(os.devnull).open("wb") as nothing:  # the first rank prints the same
        os.dup2(nothing.fileno(), 1)
    try:
        surroundings.enter()
        arguments = training.arguments()
        first.send(READY)
        with joined(rank, ranks, store, device, training.config.parallel) as group:
            fit(training.config, training.objective, _report_nothing, device=device, ranks=group, **arguments)
        first.send(DONE)
    except BaseException as error:
        first.send(Failure.of(rank, error))
        os._exit(1)  # whatever still waits for the other ranks


def _report_nothing(*report: Any) -> None:
    """The first rank reports."""
