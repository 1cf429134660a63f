"""Processes that a process of ours starts for itself, by Python's fork server, and which end with it."""

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Thread
from types import ModuleType


def end_with_parent() -> None:
    """Make this process end when the one that started it is killed: the parent that it sees is the fork server."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=wait, daemon=True).start()


_replacing = Lock()


@contextmanager
def without_main() -> Iterator[None]:
    """Keep new processes from importing this one's main module: it would import Ray, or run a user's script again.

    One thread at a time is in the body: several trainings of a process may start processes at once.
    """
    with _replacing:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
