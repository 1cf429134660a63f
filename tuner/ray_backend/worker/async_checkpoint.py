"""What is done beside the training: one piece of work at a time, in a thread of its own."""

from collections.abc import Callable
from threading import Thread
from types import TracebackType


class AsyncWork:
    """Work that goes on while its caller does. What it raises is raised where the caller looks, waits or leaves."""

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._raised: BaseException | None = None

    def __enter__(self) -> "AsyncWork":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finish()  # what it raises comes first, for it was begun before what its caller did then

    def begin(self, work: Callable[[], None]) -> None:
        """Begin this, once what was begun before is over."""
        self.finish()
        self._thread = Thread(target=self._do, args=(work,), daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Raise what was raised so far. Waits for nothing."""
        if self._raised is not None:
            self.finish()

    def finish(self) -> None:
        """Wait until what was begun is over, and raise what it raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # `SystemExit`, too: so Ray ends a trial that is to report no more
            self._raised = error
