"""What Ray runs in place of its own setup_worker.py to start a worker: it asks the fork server for one.

Ray runs it for workers that have a runtime environment, as all of Ray Tune's have, and starts others without it.
It starts hundreds of times on a large host, so that it imports the standard library alone, and nothing of tuner. Where
the fork server cannot be asked, or Ray wants more of a worker than environment variables, it becomes Ray's own script.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

ADDRESS = "TUNER_FORK_SERVER"
"""The environment variable with the path of the fork server's socket."""

_CONTEXT = "--serialized-runtime-env-context="
_LANGUAGE = "--language="
_OWN_VARIABLES = ("LD_", "PYTHON")
"""Beginnings of the variables that Python or the loader reads as a process starts: a fork would not notice them."""


def request(arguments: list[str]) -> dict[str, Any] | None:
    """Return what the fork server needs to know; None if it cannot start such a worker.

    Args:
        arguments: What Ray passes to its own script: the path of the worker's script, its arguments, and what the
            worker's runtime environment is.
    """
    context: dict[str, Any] = next(
        (json.loads(each[len(_CONTEXT) :]) for each in arguments if each.startswith(_CONTEXT)), {}
    )
    variables = context.pop("env_vars", None) or {}
    if context.pop("py_executable", None) not in (None, sys.executable) or any(context.values()):
        return None
    if any(name.startswith(_OWN_VARIABLES) for name in variables) or arguments[0].startswith("-"):
        return None
    return {
        "arguments": [each for each in arguments if not each.startswith((_CONTEXT, _LANGUAGE))],
        "variables": variables,
        "environment": {name: value for name, value in os.environ.items() if name != ADDRESS},
        "folder": str(Path.cwd()),
        "path": sys.path[1:],
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
    }


def ask(address: str, wanted: dict[str, Any], streams: tuple[int, int, int] = (0, 1, 2)) -> bool:
    """Ask for a worker that has these standard streams, by default this process's; return whether there is one."""
    text = json.dumps(wanted).encode("ascii")
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [len(text).to_bytes(8, "big")], streams)
        connection.sendall(text)
        return connection.recv(1) == b"1"  # sent as soon as the server has imported what workers need
    return False


def main(arguments: list[str]) -> None:
    address = os.environ.get(ADDRESS)
    wanted = request(arguments) if address else None
    if address and wanted and ask(address, wanted):
        return
    worker = next(each for each in arguments if each.endswith(".py"))
    own = Path(worker).with_name(Path(__file__).name)
    os.execv(sys.executable, [sys.executable, str(own), *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
