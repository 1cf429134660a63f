"""The dashboard of a cluster's head: where jobs are handed in from somewhere else."""

import asyncio
import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from ssl import SSLError
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from tuner.errors import Problem, UserError
from tuner.storage.uris import holds_secret, masked

_PATIENCE = 5.0  # seconds that the dashboard has to answer
_TOKEN = "RAY_AUTH_MODE=token, and the token in ~/.ray/auth_token or RAY_AUTH_TOKEN"
_OVERRIDING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # Ray prefers them to the address that it is given
_FORWARD = "is it running, and its port forwarded here? `ray dashboard cluster.yaml` does that"


def problems_of(address: str) -> list[Problem]:
    """What is wrong with an address of a dashboard, as it is written."""
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        is_address = is_address and not (parts.query or parts.fragment)  # a page of it
    except ValueError:
        is_address = False
    if not is_address:
        hint = "it is the address of the dashboard on the cluster's head: http://HOST:8265"
        return [Problem(f"{masked(address)!r} is no address of a dashboard", "--submit", hint=hint)]
    if holds_secret(address):
        hint = f"write http://HOST:8265; who you are is told by a token: {_TOKEN}"
        return [Problem("a name or password has no place in it", "--submit", masked(address), hint)]
    return []


def connect(address: str) -> Any:
    """A client of the jobs of the cluster.

    Raises:
        UserError: There is no dashboard of Ray's, or it does not let us in.
    """
    something_else = refused(address, "something else than Ray's dashboard answers there", _FORWARD)
    try:  # Ray itself would wait for ever
        with urlopen(f"{address.rstrip('/')}/api/version", timeout=_PATIENCE) as answer:
            if "ray_version" not in json.load(answer):
                raise something_else
    except HTTPError as error:
        if error.code not in (401, 403):  # it asks who we are
            raise something_else from None
    except OSError as error:
        why = getattr(error, "reason", None) or error
        if isinstance(why, SSLError) and why.reason == "WRONG_VERSION_NUMBER":
            hint = f"write {address.replace('https', 'http', 1)}: Ray's dashboard has no encryption of its own"
            raise refused(address, "what answers there does not speak https", hint) from None
        raise refused(address, f"no dashboard of Ray's answers: {why}", _FORWARD) from None
    except (HTTPException, ValueError, TypeError):
        raise something_else from None
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for module in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(logging.WARNING)
    for name in _OVERRIDING:
        os.environ.pop(name, None)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        was_sent = "required" not in str(error)
        message = "it refuses the token that it was sent" if was_sent else "it asks for a token, and was sent none"
        raise refused(address, message, f"set {_TOKEN}") from None
    except (RuntimeError, OSError) as error:
        raise refused(address, str(error).splitlines()[0], _FORWARD) from None


def refused(address: str, message: str, hint: str) -> UserError:
    """That a job cannot be handed in there, and why."""
    return UserError(Problem(message, "--submit", address, hint))


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
