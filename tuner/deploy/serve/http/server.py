"""The HTTP server: its address, TLS, and how it ends."""

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from tuner.deploy.serve.http.connection import connections
from tuner.errors import Problem, UserError

_KEPT = 75
"""Seconds that a connection is kept without a request."""
_BACKLOG = 2048
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Address:
    """Where the service listens.

    Args:
        host: A name or an address of this machine.
        port: The port; 0 for a free one.
        certificate: The file of the TLS certificate; None for no TLS.
        key: The file of its key.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: Path | None = None
    key: Path | None = None

    def url(self, port: int) -> str:
        """The URL of the service."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.certificate else 'http'}://{host}:{port}"


def check_tls(address: Address) -> None:
    """Check the files for TLS.

    Raises:
        UserError: They are no certificate with its key.
    """
    if address.certificate is None and address.key is None:
        return
    if address.certificate is None or address.key is None:
        missing = "--tls-key" if address.certificate else "--tls-cert"
        raise UserError(Problem("it is missing: TLS needs a certificate and its key", missing))
    for name, file in (("--tls-cert", address.certificate), ("--tls-key", address.key)):
        if not file.is_file():
            raise UserError(Problem(f"there is no file {file}", name))

    def no_password() -> str:
        raise UserError(
            Problem(f"the key in {address.key} has a password", "--tls-key", hint="openssl pkey removes it")
        )

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(address.certificate, address.key, no_password)
    except (ssl.SSLError, OSError) as error:
        why = getattr(error, "reason", None) or str(error)
        message = f"{address.certificate} and {address.key} are no certificate with its key in PEM: {why}"
        raise UserError(Problem(message, "--tls-cert")) from None


def listening(address: Address) -> socket.socket:
    """Open the socket of the service, before anything else is started.

    Raises:
        UserError: The address cannot be used.
    """
    try:
        [(family, _, _, _, name), *_] = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UserError(Problem(f"{address.host!r} is no address of this machine", "--host")) from None
    # The protocol is said, as asyncio turns Nagle's algorithm off only then: the body of an answer would wait 40 ms.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(name)
    except (OSError, OverflowError) as error:
        opened.close()
        why = getattr(error, "strerror", None) or str(error)
        hint = "--port 0 takes a free one"
        raise UserError(Problem(f"{address.host}:{address.port} cannot be used: {why}", "--port", hint=hint)) from None
    return opened


class Server(uvicorn.Server):
    """A server that ends by `stop`: it accepts nothing more, and answers what it has accepted.

    Args:
        app: The application.
        address: Where it listens, for TLS.
        grace: Most seconds that it waits for answers in the end.
        patience: Most seconds until the headers of a request have arrived.
    """

    def __init__(self, app: Any, address: Address, grace: float, patience: float = 30.0) -> None:
        config = uvicorn.Config(
            app,
            http=connections(patience),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            ws="none",
            backlog=_BACKLOG,
            timeout_keep_alive=_KEPT,
            timeout_graceful_shutdown=max(1, round(grace)),
            ssl_certfile=address.certificate,
            ssl_keyfile=address.key,
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `stopped_by_signals`."""
        yield

    def stop(self) -> None:
        """Have it end; the second time at once."""
        self.force_exit = self.should_exit
        self.should_exit = True


@contextlib.contextmanager
def stopped_by_signals(server: Server) -> Iterator[None]:
    """Have Ctrl-C, SIGTERM and the end of the terminal stop a server, in the body, in the event loop's thread."""
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, server.stop)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
