"""Whether there is a Ray at an address, and whether it lets us in. Ray itself tries for minutes before it says no."""

import os
import socket

from tuner.errors import Problem, UserError
from tuner.ray_backend.internals import internal

_PATIENCE = 5.0  # seconds that a cluster has to answer
_CALL = "/ray.rpc.NodeInfoGcsService/GetClusterId"  # what Ray itself calls first
OPEN = (
    "the cluster asks nobody for a token: whoever reaches its ports can run code there. "
    "Start Ray with RAY_AUTH_MODE=token, and a token in ~/.ray/auth_token on every machine"
)


def knock(address: str) -> bool:
    """Make sure that a cluster answers and takes our token, which this process presents from now on.

    Returns:
        Whether anybody is let in who reaches it, with a token or without.

    Raises:
        UserError: There is no Ray at the address, or it asks for a token that we do not have.
    """
    host, colon, port = _resolved(address).removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return False  # something that Ray refuses at once
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise UserError(no_ray(address, error)) from None
    if address.startswith("ray://"):
        return False  # its port is not the one that we know how to ask
    if _lets_in(f"{host}:{port}", None):
        return not host.startswith("127.")
    tokens = internal("tokens").instance()
    if not tokens.has_token(ignore_auth_mode=True):
        raise UserError(_no_entry(address, "it asks for a token, and there is none here"))
    if not _lets_in(f"{host}:{port}", tokens.get_raw_token(ignore_auth_mode=True)):
        raise UserError(_no_entry(address, "it asks for a token, and ours is another one"))
    if os.environ.get("RAY_AUTH_MODE") != "token":
        os.environ["RAY_AUTH_MODE"] = "token"
        internal("raylet_config").initialize("")  # which Ray has read already
    return False


def no_ray(address: str, error: Exception) -> Problem:
    """What a user reads where no cluster answers."""
    hint = "is it running? Without --address and RAY_ADDRESS a fresh local Ray is started"
    return Problem(f"no Ray answers there: {str(error).splitlines()[0]}", key="--address", where=address, hint=hint)


def _no_entry(address: str, message: str) -> Problem:
    hint = "put the cluster's token into ~/.ray/auth_token, or RAY_AUTH_TOKEN, or a file that RAY_AUTH_TOKEN_PATH names"
    return Problem(message, key="--address", where=address, hint=hint)


def _resolved(address: str) -> str:
    """The address that ``auto`` stands for: of the Ray that runs on this machine."""
    if address != "auto":
        return address
    return str(internal("canonicalize_bootstrap_address")(address) or address)


def _lets_in(address: str, token: str | None) -> bool:
    """Whether a cluster answers somebody with this token, or at least does not send them away for it."""
    import grpc

    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        try:
            channel.unary_unary(_CALL)(b"", timeout=_PATIENCE, metadata=metadata)
        except grpc.RpcError as error:
            return bool(error.code() is not grpc.StatusCode.UNAUTHENTICATED)
    return True
