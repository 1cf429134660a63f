"""Guards between the control loop and the callbacks: an error in a callback costs only what that callback does."""

import threading
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from tuner.error_text import summary_of
from tuner.trials.callback import TrialCallback

Result = TypeVar("Result")

_MAX_TEXT = 20_000
"""Characters of tracebacks that are kept: an error in each report would fill the record."""


class InternalErrors:
    """The errors of tuner itself that do not end the job: each kind is shown once.

    Args:
        say: Called with the text of each error, for the screen.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._known: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self.text = ""
        """The tracebacks, for the record."""
        self.reason = ""
        """The first error that makes the job fail, in a line; empty if there is none."""

    def note(self, where: str, error: BaseException, *, minor: bool = False) -> None:
        """Show and keep an error, with its traceback.

        Args:
            where: The code that raised it, such as ``the search``.
            error: The exception.
            minor: Whether the code only displays something, so that the job does not fail.
        """
        kind = where, type(error).__name__
        line = f"error in {where}: {summary_of(error)}"
        with self._lock:
            if not minor:
                self.reason = self.reason or line
            if kind in self._known or len(self.text) > _MAX_TEXT:
                return
            self._known.add(kind)
            text = f"{line}; this is a fault of tuner, and the job continues\n"
            text += "".join(traceback.format_exception(error))[-_MAX_TEXT:]
            self.text += text
        try:
            self._say(text.rstrip())
        except Exception:  # the screen fails, too; the record has the text
            return

    def guarded(self, where: str, work: Callable[..., Result], *arguments: Any) -> Result | None:
        """Call `work` and return its result; note what it raises, and return None."""
        try:
            return work(*arguments)
        except Exception as error:
            self.note(where, error)
            return None


class GuardedCallback(TrialCallback):
    """A `TrialCallback` around another one, whose errors are noted and not raised."""

    def __init__(
        self,
        inner: TrialCallback,
        internal_errors: InternalErrors,
        *,
        minor: bool = False,
        give_up: Callable[[str], object] = lambda why: None,
    ) -> None:
        """Create the guard.

        Args:
            inner: The callback.
            internal_errors: Where its errors are noted.
            minor: Whether the callback only displays something.
            give_up: Called with the reason after an error, to end a job that needs the callback.
        """
        self._inner = inner
        self._internal_errors = internal_errors
        self._minor = minor
        self._give_up = give_up

    def _call(self, event: str, *arguments: Any) -> None:
        try:
            getattr(self._inner, event)(*arguments)
        except Exception as error:
            self._internal_errors.note(f"{type(self._inner).__name__}.{event}", error, minor=self._minor)
            self._give_up(self._internal_errors.reason)


def _method(event: str) -> Callable[..., None]:
    def call(guarded: GuardedCallback, *arguments: Any) -> None:
        guarded._call(event, *arguments)

    return call


for _event in (name for name in vars(TrialCallback) if not name.startswith("_")):
    setattr(GuardedCallback, _event, _method(_event))  # every method of `TrialCallback`, also future ones
