"""The moment at which a job that runs is interfered with."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator

import psutil


@contextlib.contextmanager
def held_when(process: "subprocess.Popen[str]", is_time: Callable[[], bool], seconds: float = 300.0) -> Iterator[None]:
    """Wait until it is time, and hold a job's driver where it is while the body does something to the job.

    A job goes on between a look at its journal and what is done to it: on a busy machine whole trials end meanwhile.
    So the driver is stopped before the look that counts. Its trials come no further than their next report, since they
    wait for it to be taken. A signal that the body sends is there when the driver goes on.

    Args:
        process: The driver.
        is_time: Whether it is, by what the driver has written down so far.
        seconds: How long to wait at most.
    """
    driver, deadline = psutil.Process(process.pid), time.monotonic() + seconds
    while True:
        while not is_time():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        driver.suspend()
        while driver.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            time.sleep(0.001)
        if is_time():
            break
        driver.resume()
    try:
        yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            driver.resume()
