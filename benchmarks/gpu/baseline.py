"""An earlier commit of this repository, whose code whole jobs are compared with."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import machine
from benchmarks.gpu.figures import Skipped


@contextmanager
def source_of(baseline: str) -> Iterator[Path]:
    """Check a commit out into a temporary folder, which is removed afterwards.

    Args:
        baseline: The commit; or a folder that has it already, where there is no git.

    Raises:
        Skipped: There is no git, no repository, or no such commit.
    """
    if (Path(baseline) / "tuner").is_dir():
        yield Path(baseline).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="tuner-baseline-", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "source"
        _git("worktree", "add", "--detach", str(folder), baseline)
        try:
            yield folder
        finally:
            _git("worktree", "remove", "--force", str(folder))


def _git(*arguments: str) -> None:
    try:
        done = subprocess.run(["git", "-C", str(machine.ROOT), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Skipped("git is not installed: --baseline FOLDER takes a copy of an earlier commit") from None
    if done.returncode:
        raise Skipped(f"git {' '.join(arguments)}: {done.stderr.strip()}")
