"""Where an experiment comes from: its file's question, whoever started it, versions and the git commit."""

import getpass
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from itertools import takewhile
from pathlib import Path

from tuner.version import __version__


def versions() -> dict[str, str]:
    """Of what a trial's numbers depend on."""
    there = {"python": platform.python_version(), "tuner": __version__}
    there |= {name: metadata.version(name) for name in ("torch", "torchvision", "ray", "optuna", "mlflow")}
    return {f"tuner.version.{name}": version for name, version in there.items()}


def question(source: Path) -> str:
    """What an experiment's file asks: the comment that it opens with."""
    if not source.is_file():
        return ""
    lines = takewhile(lambda line: line.startswith("#"), source.read_text(encoding="utf-8").splitlines())
    return "\n".join(line.lstrip("# ") for line in lines)


def user() -> str:
    """Who started it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"


def commit(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The git commit of the experiment's own repository, not of the one that this package was installed from."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True, env=dict(environment))
        return done.stdout.strip()

    try:
        commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"mlflow.source.git.commit": commit, "tuner.git_state": "changed since" if changed else "as committed"}
