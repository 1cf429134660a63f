"""The client of Ray's Jobs API, at the dashboard of a cluster's head."""

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
    """Return the problems of a dashboard's address, without connecting to it."""
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
        return [Problem("must not contain a user name or password", "--submit", masked(address), hint)]
    return []


def connect(address: str) -> Any:
    """Return Ray's client of the jobs of a cluster.

    Args:
        address: The address of the dashboard, ``http://HOST:8265``.

    Raises:
        UserError: No dashboard of Ray answers, or it rejects the token.
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
    """Return the error that a job cannot be submitted, and why."""
    return UserError(Problem(message, "--submit", address, hint))


_UNREACHABLE = 60.0  # seconds for which the dashboard may be unreachable
_PAUSE = 2.0  # seconds between attempts


def follow(client: Any, job: str) -> Any:
    """Write a job's log to standard output until the job ends, and return Ray's details of it.

    A daemon thread reads the log, so that Ctrl-C need not wait for the network.

    Args:
        client: From `connect`.
        job: The job's submission id.

    Raises:
        ConnectionError: The dashboard was unreachable for too long.
    """
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    is_over = threading.Event()

    def write(text: str) -> None:
        if not is_over.is_set():
            sys.stdout.write(text)
            sys.stdout.flush()

    def run() -> None:
        try:
            results.put(asyncio.run(_tail(client, job, write)))
        except BaseException as error:
            results.put(error)

    threading.Thread(target=run, name="log", daemon=True).start()
    try:
        details = results.get()
    finally:
        is_over.set()
    if isinstance(details, BaseException):
        raise details
    return details


async def _tail(client: Any, job: str, write: Callable[[str], None]) -> Any:
    from aiohttp import ClientError
    from ray.exceptions import RayError

    written = 0
    last_answer = time.monotonic()
    while True:
        skip = written  # characters: each attempt gets the log from its beginning
        problem: BaseException | str = "its log ended"
        try:
            async for text in client.tail_job_logs(job):
                last_answer = time.monotonic()
                new, skip = text[skip:], max(0, skip - len(text))
                written += len(new)
                write(new)
            details = await asyncio.to_thread(client.get_job_info, job)
            if details.status.is_terminal():
                return details
            last_answer = time.monotonic()
        except BrokenPipeError:
            raise  # the reader of standard output has ended
        except (ClientError, RayError, RuntimeError, OSError) as error:
            problem = error
        if time.monotonic() - last_answer > _UNREACHABLE:
            raise ConnectionError(str(problem))
        await asyncio.sleep(_PAUSE)
