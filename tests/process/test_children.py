"""Processes that a process starts for itself."""

import sys
from threading import Event, Thread

from tuner.process.children import without_main


def test_threads_that_start_processes_at_once_leave_the_main_module_as_it_was() -> None:
    main, inside, gone = sys.modules["__main__"], Event(), Event()
    seen = list[bool]()

    def other() -> None:
        with without_main():
            seen.append(sys.modules["__main__"] is not main)
            inside.set()
            gone.wait(60)

    thread = Thread(target=other)
    with without_main():
        seen.append(sys.modules["__main__"] is not main)
        thread.start()
        inside.wait(0.2)
    gone.set()
    thread.join()
    assert sys.modules["__main__"] is main and seen == [True, True]
