"""Runs commands of tuner in processes of their own, and measures their time and memory."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine


@dataclass(frozen=True)
class Usage:
    """What a command took: wall-clock seconds, and the peak resident memory of its process (ru_maxrss) in bytes."""

    seconds: float
    peak: int


def usage(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Usage:
    """Run a `tuner` command and measure it.

    On Linux the peak of a new process is at least the size of this one, which should import nothing large.

    Args:
        arguments: The name of the command, and its arguments.
        environment: More environment variables than those of `machine.environment`.

    Raises:
        RuntimeError: The command failed.
    """
    command = [str(Path(sys.executable).with_name("tuner")), *arguments]
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, env=machine.environment() | dict(environment or {}), stdout=output, stderr=output
        )
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            raise RuntimeError(f"tuner {' '.join(arguments)} failed:\n{output.read().decode()}")
    return Usage(seconds, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def end(process: "subprocess.Popen[bytes]", patience: float = 20.0) -> None:
    """End the process of a job if it still runs, and all processes that it left.

    Args:
        process: It has a session of its own (`start_new_session`).
        patience: Seconds that it has to end by itself.
    """
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience)
    with contextlib.suppress(ProcessLookupError):  # no process is left, as expected
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
