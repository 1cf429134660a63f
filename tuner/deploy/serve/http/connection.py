"""A connection of a client: how long, and how large, what comes before the body of a request may be."""

import asyncio
from functools import partial
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from tuner.deploy.serve.http.refused import Refused

_HEADERS = 65_536
"""Most bytes of the headers of a request: uvicorn has no limit."""
_Protocol: Any = AutoHTTPProtocol


def connections(seconds: float) -> Any:
    """Make what uvicorn makes connections with.

    Args:
        seconds: Most seconds until the headers of a request have arrived, and until what is left of a body that is
            answered already has.
    """
    return partial(Connection, seconds)


class Connection(_Protocol):  # type: ignore[misc]  # uvicorn chooses it as it is imported
    """A connection that is closed if no request comes, or one comes too slowly: uvicorn would wait for ever.

    Args:
        seconds: As of `connections`.
        given: uvicorn's own arguments.
    """

    def __init__(self, seconds: float, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._seconds = seconds
        self._overdue: asyncio.TimerHandle | None = None
        self._bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, error: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop_waiting()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Receive a part of a request."""
        super().data_received(data)
        if self.transport.is_closing() or not self._has_no_request:
            self._stop_waiting()
            return
        self._bytes += len(data)
        if self._bytes > _HEADERS and not self._has_rest:
            self._refuse(Refused(431, f"the headers have more than {_HEADERS} bytes", "send shorter headers"))
        elif self._overdue is None:
            self._wait()

    @property
    def _has_no_request(self) -> bool:
        """Whether all requests are answered whose headers have arrived."""
        return self.cycle is None or bool(self.cycle.response_complete)

    @property
    def _has_rest(self) -> bool:
        """Whether the body of a request that is answered has not arrived as a whole."""
        return self.cycle is not None and bool(self.cycle.more_body)

    def _wait(self) -> None:
        self._overdue = self.loop.call_later(self._seconds, self._end)

    def _stop_waiting(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
        self._overdue, self._bytes = None, 0

    def _end(self) -> None:
        if not self._has_no_request:
            return
        if self._bytes and not self._has_rest:
            message = f"the headers did not arrive within {self._seconds:g} seconds"
            self._refuse(Refused(408, message, "send the request at once"))
        else:
            self.transport.close()

    def _refuse(self, refused: Refused) -> None:
        """Answer a request whose headers have not arrived, and close the connection."""
        text = refused.text.encode()
        status = f"HTTP/1.1 {refused.status} {HTTPStatus(refused.status).phrase}"
        headers = f"content-type: application/json\r\ncontent-length: {len(text)}\r\nconnection: close"
        self.transport.write(f"{status}\r\n{headers}\r\n\r\n".encode() + text)
        self.transport.close()
