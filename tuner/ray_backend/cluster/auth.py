"""Checks that a Ray cluster answers and accepts our token. Ray itself tries for minutes before it fails."""

import os
import socket

from tuner.errors import Problem, UserError
from tuner.ray_backend.internals import internal

_TIMEOUT = 5.0  # seconds that a cluster has to answer
_CALL = "/ray.rpc.NodeInfoGcsService/GetClusterId"  # the first call that Ray itself makes
OPEN = (
    "the cluster requires no token: whoever reaches its ports can run code there. "
    "Start Ray with RAY_AUTH_MODE=token, and a token in ~/.ray/auth_token on every node"
)


def check_access(address: str) -> bool:
    """Check that a cluster answers and accepts our token, which this process sends from now on.

    Args:
        address: As for `ray.init`: ``HOST:PORT``, ``auto`` or ``ray://HOST:PORT``.

    Returns:
        Whether the cluster accepts connections without a token, at an address that others may reach.

    Raises:
        UserError: There is no Ray at the address, or it requires a token that we do not have.
    """
    host, colon, port = _resolved(address).removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return False  # no address: Ray rejects it at once
    try:
        socket.create_connection((host, int(port)), timeout=_TIMEOUT).close()
    except OSError as error:
        raise UserError(no_ray(address, error)) from None
    if address.startswith("ray://"):
        return False  # the port of Ray Client does not answer the call below
    if _accepts(f"{host}:{port}", None):
        return not host.startswith("127.")
    tokens = internal("tokens").instance()
    if not tokens.has_token(ignore_auth_mode=True):
        raise UserError(_no_access(address, "it asks for a token, and there is none here"))
    if not _accepts(f"{host}:{port}", tokens.get_raw_token(ignore_auth_mode=True)):
        raise UserError(_no_access(address, "it asks for a token, and ours is another one"))
    if os.environ.get("RAY_AUTH_MODE") != "token":
        os.environ["RAY_AUTH_MODE"] = "token"
        internal("raylet_config").initialize("")  # Ray has read the variable already: read it again
    return False


def no_ray(address: str, error: Exception) -> Problem:
    """Return the problem that no cluster answers at an address."""
    hint = "is it running? Without --address and RAY_ADDRESS a fresh local Ray is started"
    return Problem(f"no Ray answers there: {str(error).splitlines()[0]}", key="--address", where=address, hint=hint)


def _no_access(address: str, message: str) -> Problem:
    hint = "put the cluster's token into ~/.ray/auth_token, or RAY_AUTH_TOKEN, or a file that RAY_AUTH_TOKEN_PATH names"
    return Problem(message, key="--address", where=address, hint=hint)


def _resolved(address: str) -> str:
    """Return an address, for ``auto`` that of the Ray that runs on this host."""
    if address != "auto":
        return address
    return str(internal("canonicalize_bootstrap_address")(address) or address)


def _accepts(address: str, token: str | None) -> bool:
    """Return whether a cluster does not reject a call with this token as unauthenticated."""
    import grpc

    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        try:
            channel.unary_unary(_CALL)(b"", timeout=_TIMEOUT, metadata=metadata)
        except grpc.RpcError as error:
            return bool(error.code() is not grpc.StatusCode.UNAUTHENTICATED)
    return True
