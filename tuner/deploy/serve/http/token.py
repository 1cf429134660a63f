"""The bearer token that clients show where not only this machine can reach the service."""

import hmac
import ipaddress
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers

from tuner.deploy.serve.http.refused import Refused
from tuner.errors import Problem, UserError

VARIABLE = "TUNER_SERVE_TOKEN"
"""The environment variable with the token."""
_LEAST = 16
"""Least length of a token: a shorter one can be guessed."""


class Guard:
    """Asks for the token, before anything of a request is read.

    Args:
        app: The application behind it.
        token: The token; None if all are served.
        free: The paths that need none: what they answer is no secret.
    """

    def __init__(self, app: Any, token: str | None, free: Collection[str]) -> None:
        self._app, self._free = app, frozenset(free)
        self._wanted = None if token is None else token.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and not self._may_pass(scope):
            hint = f"send the header Authorization: Bearer TOKEN, with the token of {VARIABLE} or --token-file"
            await Refused(401, "this service asks for a token", hint).response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _may_pass(self, scope: Any) -> bool:
        if self._wanted is None or scope["path"] in self._free:
            return True
        kind, _, shown = Headers(scope=scope).get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(shown.strip().encode("latin-1"), self._wanted)


def token_for(host: str, file: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The token of a service that listens at an address; None if it needs none and has none.

    Args:
        host: The address.
        file: The file with the token; None for that of the environment.
        environment: The environment.

    Raises:
        UserError: Others than this machine can reach the address, and there is no token; or it is too short.
    """
    where = VARIABLE if file is None else str(file)
    text = environment.get(VARIABLE) if file is None else _content(file)
    token = (text or "").strip()
    if not token:
        if file is None and is_loopback(host):
            return None
        message = f"--host {host} can be reached by others, and there is no token" if file is None else "it is empty"
        raise UserError(Problem(message, "--token-file", "" if file is None else where, _how()))
    if len(token) < _LEAST or not (token.isascii() and token.isprintable()) or " " in token:
        message = f"a token has at least {_LEAST} characters, which are ASCII and no spaces"
        raise UserError(Problem(message, where=where, hint=_how()))
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise UserError(Problem(f"it cannot be read: {why}", "--token-file", str(file), _how())) from None


def _how() -> str:
    return f"python -c 'import secrets; print(secrets.token_urlsafe())' makes one, for a file or {VARIABLE}"
