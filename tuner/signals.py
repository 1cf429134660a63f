"""Signals that interrupt a job: from Ctrl-C, a batch system, a closed terminal or an administrator."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
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


@contextlib.contextmanager
def on_signal(handle: Callable[[str], object]) -> Iterator[None]:
    """Call `handle` with the name of each of the `SIGNALS` that arrives while the body runs.

    A signal that the parent process has set to be ignored, as ``nohup`` does with SIGHUP, stays ignored, except for
    SIGINT, which shells ignore for every background process. Python handles signals in the main thread only: in
    another thread this context manager does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def call(number: int, frame: object) -> None:
        handle(signal.Signals(number).name)

    handled = [number for number in SIGNALS if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.getsignal(number) for number in handled}
    try:
        for number in handled:
            signal.signal(number, call)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not installed from Python
