"""What a job does beside training, shown while it lasts: connecting, starting workers, testing, writing.

Quick to import: it is there before anything that takes seconds.
"""

import time
from types import TracebackType

from rich.console import Console
from rich.status import Status
from rich.text import Text

WORKERS, TRIALS = "workers", "trials"


class Phases:
    """The phases of a job, one after another: a spinner on a terminal, a line in a log, and how long each took."""

    def __init__(self, console: Console) -> None:
        """The job begins now."""
        self.began = time.time()
        """In seconds since 1970."""
        self.seconds: dict[str, float] = {}
        """How long each phase took that is over, by its name."""
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

    def begin(self, name: str, says: str = "", *, in_a_log: bool = True) -> None:
        """End the phase that there is, and begin another: one of the same name goes on.

        Args:
            name: A word for the summary.
            says: What is shown meanwhile; empty where something else shows it.
            in_a_log: Whether a log says so, too.
        """
        self.end()
        self._name = name
        if not says:
            return
        if self._console.is_terminal and self._console.file.isatty():
            # A thread of rich's own turns it; what else is printed meanwhile comes above it.
            self._spinner = self._console.status(Text(says))
            self._spinner.start()
        elif in_a_log:
            self._console.print(Text(f"{says} ..."), soft_wrap=True)

    def end(self) -> None:
        """End the phase that there is, if any."""
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None
        now = time.perf_counter()
        if self._name:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._since
        self._name, self._since = "", now

    @property
    def waits_for_workers(self) -> bool:
        """Whether no trial has begun yet."""
        return self._name == WORKERS
