"""Follow the log of a job of Ray's from somewhere else."""

import asyncio
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

_AWAY = 60.0  # seconds that the dashboard may be away
_PAUSE = 2.0  # seconds between attempts


def follow(client: Any, job: str) -> Any:
    """Write the job's log to standard output until the job ends. Returns Ray's details of it.

    A thread does, which may wait for a network that is away as long as it likes: we need not wait for it.

    Raises:
        ConnectionError: The dashboard was away for too long.
    """
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    is_over = threading.Event()

    def write(text: str) -> None:
        if not is_over.is_set():
            sys.stdout.write(text)
            sys.stdout.flush()

    def run() -> None:
        try:
            told.put(asyncio.run(_tail(client, job, write)))
        except BaseException as error:
            told.put(error)

    threading.Thread(target=run, name="log", daemon=True).start()
    try:
        details = told.get()
    finally:
        is_over.set()
    if isinstance(details, BaseException):
        raise details
    return details


async def _tail(client: Any, job: str, write: Callable[[str], None]) -> Any:
    from aiohttp import ClientError
    from ray.exceptions import RayError

    seen = 0
    heard = time.monotonic()
    while True:
        again = seen  # characters: the log comes from its beginning each time
        problem: BaseException | str = "its log ended"
        try:
            async for text in client.tail_job_logs(job):
                heard = time.monotonic()
                fresh, again = text[again:], max(0, again - len(text))
                seen += len(fresh)
                write(fresh)
            details = await asyncio.to_thread(client.get_job_info, job)
            if details.status.is_terminal():
                return details
            heard = time.monotonic()
        except BrokenPipeError:
            raise  # nobody reads what we write
        except (ClientError, RayError, RuntimeError, OSError) as error:
            problem = error
        if time.monotonic() - heard > _AWAY:
            raise ConnectionError(str(problem))
        await asyncio.sleep(_PAUSE)
