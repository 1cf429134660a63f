"""NVIDIA's Multi-Process Service, by which processes compute on a GPU at the same time instead of taking turns."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.gpu.figures import Skipped
from benchmarks.gpu.setting import Setting

CONTROL = "nvidia-cuda-mps-control"


@contextmanager
def daemon(setting: Setting) -> Iterator[dict[str, str]]:
    """Start a daemon of our own, which serves only processes with these environment variables, and end it afterwards.

    Raises:
        Skipped: It is not installed, or does not start here.
    """
    control = shutil.which(CONTROL)
    if control is None:
        raise Skipped(f"{CONTROL} is not installed")
    # Its socket lies in the folder, and the path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="mps-", ignore_cleanup_errors=True) as name:
        folders = {"CUDA_MPS_PIPE_DIRECTORY": f"{name}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{name}/log"}
        for folder in folders.values():
            Path(folder).mkdir()
        environment = setting.environment() | folders
        started = subprocess.run(
            [control, "-d"], env=environment, capture_output=True, text=True, check=False, timeout=30
        )
        if started.returncode:
            said = (started.stderr or started.stdout).strip() or f"status {started.returncode}"
            raise Skipped(f"{CONTROL} does not start here: {said}")
        try:
            yield folders | {"CUDA_VISIBLE_DEVICES": "0"}  # of those that the daemon has, which is one
        finally:
            subprocess.run(
                [control], env=environment, input="quit -t 5\n", text=True, capture_output=True, check=False, timeout=30
            )
