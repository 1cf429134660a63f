"""Where an experiment comes from: its file's first comment, the user, versions and the git commit."""

import getpass
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from itertools import takewhile
from pathlib import Path

from tuner.version import __version__


def versions() -> dict[str, str]:
    """Return tags with the versions of the software on which a trial's numbers depend."""
    found = {"python": platform.python_version(), "tuner": __version__}
    found |= {name: metadata.version(name) for name in ("torch", "torchvision", "ray", "optuna", "mlflow")}
    return {f"tuner.version.{name}": version for name, version in found.items()}


def question(source: Path) -> str:
    """Return the comment at the top of an experiment's file, which asks the experiment's question."""
    if not source.is_file():
        return ""
    lines = takewhile(lambda line: line.startswith("#"), source.read_text(encoding="utf-8").splitlines())
    return "\n".join(line.lstrip("# ") for line in lines)


def user() -> str:
    """Return the name of the user of this process."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"


def commit(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return tags with the git commit of the experiment's repository, not of the one that tuner was installed from."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True, env=dict(environment))
        return done.stdout.strip()

    try:
        commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"mlflow.source.git.commit": commit, "tuner.git_state": "changed since" if changed else "as committed"}
