"""Saving and reporting a checkpoint in a second thread while the training continues."""

from collections.abc import Callable
from threading import Thread
from types import TracebackType


class AsyncWork:
    """Runs one function at a time in a thread. `begin`, `look`, `finish` and leaving raise its exception."""

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._raised: BaseException | None = None

    def __enter__(self) -> "AsyncWork":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finish()  # its exception replaces the caller's: the work began earlier

    def begin(self, work: Callable[[], None]) -> None:
        """Wait for the current work, raise its exception if there is one, and start the next."""
        self.finish()
        self._thread = Thread(target=self._do, args=(work,), daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Raise the exception that the work has raised so far, if any, without waiting."""
        if self._raised is not None:
            self.finish()

    def finish(self) -> None:
        """Wait for the current work, and raise the exception that it raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # also `SystemExit`, with which Ray ends a trial
            self._raised = error
