"""Whether the libraries are there that only a service needs."""

from importlib.util import find_spec

from tuner.errors import Problem, UserError

_NEEDED = ("fastapi", "uvicorn", "python_multipart", "grpc_reflection", "prometheus_client")


def check() -> None:
    """Check that the libraries of the extra ``serve`` are installed.

    Raises:
        UserError: One is not.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        message = f"tuner serve needs libraries that are not installed: {', '.join(missing)}"
        raise UserError(Problem(message, hint="pip install 'tuner[serve]'"))
