"""The command line in the process of the tests: a process of its own imports Ray, MLflow and PyTorch first."""

import contextlib
import io
import os
import urllib.request
from pathlib import Path
from unittest import mock

import pytest
import torch

from tuner.cli.app import main


def tuner(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run ``tuner`` with `arguments` in this process, as somebody would type it in a folder.

    A job has its trials on the Ray of `one_ray`, or in this process within `in_process`.

    Args:
        folder: Working directory.
        arguments: The command's name and arguments.
        environment: More environment variables. Of ours it has all but MLflow's.

    Returns:
        Its exit status, and what it said on standard output and standard error.
    """
    said, threads = io.StringIO(), torch.get_num_threads()
    without = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, without | environment, clear=True),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        pytest.raises(SystemExit) as left,
    ):
        main(list(arguments))
    urllib.request.install_opener(None)  # it keeps the proxies of its first use
    torch.set_num_threads(threads)
    return int(left.value.code or 0), said.getvalue()
