"""The signals that interrupt: Ctrl-C, and what a batch system, a closed terminal or an administrator sends instead."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""All mean the same: end what you do so that it can go on later. SLURM sends SIGUSR1 or SIGTERM before its limit."""


class Interrupted(KeyboardInterrupt):
    """A signal has ended what was being done; its argument is the signal's name."""


def stop(name: str) -> NoReturn:
    """End what is being done, as Ctrl-C does.

    Args:
        name: The signal's, such as ``SIGTERM``.
    """
    raise Interrupted(name)


@contextlib.contextmanager
def on_signal(handle: Callable[[str], object]) -> Iterator[None]:
    """Have each of the `SIGNALS` call a function with its name.

    A signal that whoever started us has ignored, as ``nohup`` does with SIGHUP, stays ignored. But not Ctrl-C: a shell
    ignores that for all that runs in the background. Only the main thread can be interrupted: on another one, nothing
    changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def call(number: int, frame: object) -> None:
        handle(signal.Signals(number).name)

    taken = [number for number in SIGNALS if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.getsignal(number) for number in taken}
    try:
        for number in taken:
            signal.signal(number, call)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not one of Python's
