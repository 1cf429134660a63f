"""Signals that interrupt a job: from Ctrl-C, a batch system, a closed terminal or an administrator."""

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Each of them ends the job so that it can be resumed. SLURM sends SIGUSR1 or SIGTERM before its time limit."""


class Interrupted(KeyboardInterrupt):
    """A signal interrupted the process; the argument is the name of the signal."""


def stop(name: str) -> NoReturn:
    """Raise Interrupted.

    Args:
        name: Name of the signal, such as ``SIGTERM``.
    """
    raise Interrupted(name)


_LOGGING_AFTER_FORK = getattr(getattr(logging, "_releaseLock", None), "__code__", None)
"""Gives back logging's lock after each fork (Python 3.11 and 3.12); an exception there would leave it locked."""


def _send_again(number: int) -> None:
    """Send a signal to the main thread in a moment, when it has left the function that it is in."""
    timer = threading.Timer(0.01, signal.pthread_kill, (threading.main_thread().ident, number))
    timer.daemon = True
    timer.start()


@contextlib.contextmanager
def on_signal(handle: Callable[[str], object]) -> Iterator[None]:
    """Call `handle` with the name of each of the `SIGNALS` that arrives while the body runs.

    A signal that the parent process has set to be ignored, as ``nohup`` does with SIGHUP, stays ignored, except for
    SIGINT, which shells ignore for every background process. Python handles signals in the main thread only: in
    another thread this context manager does nothing.

    An Interrupted that `handle` raises is not lost: where Python ignores exceptions, in a finalizer or in a function
    that is called at a fork, the signal is sent again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def call(number: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code is _LOGGING_AFTER_FORK:
            _send_again(number)
        else:
            handle(signal.Signals(number).name)

    handled = [number for number in SIGNALS if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.getsignal(number) for number in handled}
    hook = sys.unraisablehook

    def send_again(ignored: "sys.UnraisableHookArgs") -> None:
        if isinstance(ignored.exc_value, Interrupted):
            _send_again(signal.Signals[str(ignored.exc_value)])
        else:
            hook(ignored)

    try:
        sys.unraisablehook = send_again
        for number in handled:
            signal.signal(number, call)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not installed from Python
        sys.unraisablehook = hook
