"""Which requests are let in: as many as the queue holds, and bodies of a limited size."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from starlette.requests import Request

from tuner.deploy.serve.http.refused import Refused
from tuner.deploy.serve.limits import Limits

_SOON = 1
"""Seconds after which a client that was refused may try again."""


class Admission:
    """Lets requests in.

    Args:
        limits: How many, and how large.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.requests = 0
        """Requests that are let in and not yet answered."""
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether no more requests are let in."""
        return self.requests >= self._limits.queue

    def refusal(self) -> Refused:
        """What a client is told while the queue is full."""
        return self._full(f"{self.requests} requests wait already")

    @contextmanager
    def admitted(self) -> Iterator["Admitted"]:
        """Let a request in until the end of the body.

        Raises:
            Refused: The queue is full.
        """
        if self.is_full:
            raise self.refusal()
        self.requests += 1
        one = Admitted(self, self._limits)
        try:
            yield one
        finally:
            self.requests -= 1
            self._bytes -= one.bytes

    def hold(self, count: int) -> None:
        """Have room for more bytes of a request.

        Raises:
            Refused: There is no room.
        """
        if self._bytes + count > self._limits.queue_bytes:
            raise self._full(f"the requests that wait already take {self._bytes} bytes")
        self._bytes += count

    @staticmethod
    def _full(why: str) -> Refused:
        return Refused(429, f"the service is busy: {why}", "try again after the seconds in Retry-After", _SOON)


class Admitted:
    """A request that was let in.

    Args:
        admission: What has let it in.
        limits: How large it may be.
    """

    def __init__(self, admission: Admission, limits: Limits) -> None:
        self._admission, self._limits = admission, limits
        self.bytes = 0
        """Bytes of its body so far."""

    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """Receive the body of the request, in pieces.

        Raises:
            Refused: It is too large, takes too long, or the service has no room for it.
        """
        declared = request.headers.get("content-length", "")
        if declared.isascii() and declared.isdecimal() and len(declared) < 20:
            self._check(int(declared))
        stream = request.stream()
        deadline = asyncio.get_running_loop().time() + self._limits.seconds
        while (piece := await self._next(stream, deadline)) is not None:
            self._check(self.bytes + len(piece))
            self._admission.hold(len(piece))
            self.bytes += len(piece)
            yield piece

    async def _next(self, stream: AsyncIterator[bytes], deadline: float) -> bytes | None:
        """Receive the next piece; None at the end. Only receiving is timed, not what is done with the pieces."""
        try:
            async with asyncio.timeout_at(deadline):
                return await anext(stream, None)
        except TimeoutError:
            message = f"the body did not arrive within {self._limits.seconds:g} seconds"
            raise Refused(408, message, "send smaller images, or over a faster connection") from None

    def _check(self, size: int) -> None:
        if size > self._limits.request_bytes:
            message = f"the body has more than {self._limits.request_bytes} bytes"
            raise Refused(413, message, "send smaller images, or fewer in a request")
