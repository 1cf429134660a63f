"""What a trial has of whoever scheduled it: where its reports go, and what it resumes from."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from tuner.formatting import duration

LAST_BATCH = {"TUNE_FUNCTION_THREAD_TIMEOUT_S": "10"}
"""The environment variable of Ray for the seconds that it waits for a trial that it ends, before it starts another
worker for the next trial: enough for one batch or one validation."""


def hung(seconds: float) -> str:
    """The reason of a trial that is ended because it has not reported for so many seconds."""
    return f"it hung: no report for {duration(seconds)}"


class Stopped(SystemExit):
    """Ray Tune ends the trial, which must not report again."""

    def __init__(self) -> None:
        super().__init__(0)  # Ray counts any other status as an error


class Lost(Exception):
    """What computed the trial has ended, and not by the trial itself. It may resume from its last checkpoint."""


class Session(Protocol):
    """The session of one trial."""

    def report(self, values: dict[str, Any], folder: Path | None) -> None:
        """Report values, and the files of a folder as a checkpoint; the folder may be deleted afterwards.

        Raises:
            Stopped: The trial is to end.
            Lost: Whoever scheduled it has gone.
        """

    def checkpoints(self) -> Iterator[tuple[str, AbstractContextManager[Path]]]:
        """The checkpoints to resume from, the latest first: the path of each, and what has its folder on this node.

        Entering the latter raises `tuner.train.checkpoint.Damaged` if the checkpoint does not exist.
        """
