"""Walls between the control loop and what listens to it: what raises there costs no more than it must."""

import threading
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from tuner.error_text import summary_of
from tuner.trials.callback import TrialCallback

Result = TypeVar("Result")

_MOST = 20_000
"""Characters of tracebacks that are kept: a fault of each report would fill the record."""


class InternalErrors:
    """Errors of this program that a job lives on with: each kind is said once."""

    def __init__(self, say: Callable[[str], object]) -> None:
        """None yet.

        Args:
            say: Given the text of each, for the screen.
        """
        self._say = say
        self._known: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self.text = ""
        """The tracebacks, for the record."""
        self.reason = ""
        """The first in a line of those that make the job a failed one; empty where there is none."""

    def note(self, where: str, error: BaseException, *, minor: bool = False) -> None:
        """Say and keep an error, with its traceback.

        Args:
            where: What raised it, in words.
            error: What was raised.
            minor: It costs what is only looked at, and the job is none the worse for it.
        """
        kind = where, type(error).__name__
        line = f"error in {where}: {summary_of(error)}"
        with self._lock:
            if not minor:
                self.reason = self.reason or line
            if kind in self._known or len(self.text) > _MOST:
                return
            self._known.add(kind)
            text = f"{line}; this is a fault of tuner, and the job goes on\n"
            text += "".join(traceback.format_exception(error))[-_MOST:]
            self.text += text
        try:
            self._say(text.rstrip())
        except Exception:  # nothing is left to say it with; the record has it
            return

    def guarded(self, where: str, work: Callable[..., Result], *arguments: Any) -> Result | None:
        """Do something. Returns what comes of it; None where it raises, which is noted."""
        try:
            return work(*arguments)
        except Exception as error:
            self.note(where, error)
            return None


class GuardedCallback(TrialCallback):
    """A listener whose errors stay its own. A `TrialCallback`."""

    def __init__(
        self,
        inner: TrialCallback,
        internal_errors: InternalErrors,
        *,
        minor: bool = False,
        give_up: Callable[[str], object] = lambda why: None,
    ) -> None:
        """Stand between the control loop and a listener.

        Args:
            inner: The listener.
            internal_errors: Told of its errors.
            minor: What it does is only looked at.
            give_up: Ends the job, given why, where it cannot go on without the listener.
        """
        self._inner = inner
        self._internal_errors = internal_errors
        self._minor = minor
        self._give_up = give_up

    def _tell(self, event: str, *what: Any) -> None:
        try:
            getattr(self._inner, event)(*what)
        except Exception as error:
            self._internal_errors.note(f"{type(self._inner).__name__}.{event}", error, minor=self._minor)
            self._give_up(self._internal_errors.reason)


def _told(event: str) -> Callable[..., None]:
    def tell(guarded: GuardedCallback, *what: Any) -> None:
        guarded._tell(event, *what)

    return tell


for _event in (name for name in vars(TrialCallback) if not name.startswith("_")):
    setattr(GuardedCallback, _event, _told(_event))  # every event that there is, and those that are to come
