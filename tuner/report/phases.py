"""The phases of a job before and after its trials, shown while they last: connecting, starting workers, testing,
writing.

Quick to import: it shows phases before imports that take seconds.
"""

import time
from types import TracebackType

from rich.console import Console
from rich.status import Status
from rich.text import Text

WORKERS, TRIALS = "workers", "trials"


class Phases:
    """The phases of a job, one after another: shown as a spinner on a terminal, as a line in a log, and timed."""

    def __init__(self, console: Console) -> None:
        self.began = time.time()
        """When the job began, in seconds since 1970."""
        self.seconds: dict[str, float] = {}
        """How long each phase took that has ended, by its name."""
        self._console = console
        self._name = ""
        self._since = time.perf_counter()
        self._spinner: Status | None = None

    def __enter__(self) -> "Phases":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def begin(self, name: str, message: str = "", *, in_a_log: bool = True) -> None:
        """End the current phase and begin another; the times of phases with the same name are added.

        Args:
            name: The phase's name in the summary.
            message: What to show meanwhile; empty where something else shows it.
            in_a_log: Whether to print the message into a log, too.
        """
        self.end()
        self._name = name
        if not message:
            return
        if self._console.is_terminal and self._console.file.isatty():
            # rich redraws it in a thread; other lines that are printed meanwhile come above it.
            self._spinner = self._console.status(Text(message))
            self._spinner.start()
        elif in_a_log:
            self._console.print(Text(f"{message} ..."), soft_wrap=True)

    def end(self) -> None:
        """End the current phase, if any."""
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None
        now = time.perf_counter()
        if self._name:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._since
        self._name, self._since = "", now

    @property
    def waits_for_workers(self) -> bool:
        """Whether workers are starting and no trial has begun."""
        return self._name == WORKERS
