"""What of a folder travels to a cluster: what git does not ignore."""

import os
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from tuner.errors import Problem, UserError
from tuner.formatting import shown
from tuner.storage import temporary

MOST = 500 * 2**20
"""Bytes that Ray takes; the package lies in the memory of the cluster's head."""

_NEVER = (
    *(".venv/", "venv/", "__pycache__/", ".env", ".env.*", ".ray/"),
    *("runs/", "mlruns/", "mlartifacts/", "mlflow.db*"),
)
"""Patterns of what is no part of an experiment, and stays here where no ``.gitignore`` speaks of it, too."""


@dataclass(frozen=True)
class Package:
    """The files of a folder that travel.

    Args:
        folder: The folder.
        files: Their paths below it.
        left_out: Links to folders, which are not followed.
    """

    folder: Path
    files: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(self._size(file) for file in self.files)

    def __str__(self) -> str:
        many = "1 file" if len(self.files) == 1 else f"{len(self.files)} files"
        without = f", without {', '.join(self.left_out)} (a link to a folder)" if self.left_out else ""
        return f"{many} of {self.folder}, {shown(self.size)}{without}"

    def write(self, path: Path) -> None:
        """Write it as a zip file: the same one for the same files, which Ray then has already."""
        with ZipFile(path, "w", ZIP_DEFLATED, strict_timestamps=False) as archive:
            for file in self.files:
                archive.write(self.folder / file, file)

    def largest(self) -> str:
        """What takes most of it, by the names in the folder."""
        sizes: Counter[str] = Counter()
        for file in self.files:
            sizes[file.split("/")[0]] += self._size(file)
        return ", ".join(f"{name} {shown(size)}" for name, size in sizes.most_common(3))

    def _size(self, file: str) -> int:
        return (self.folder / file).stat().st_size


def package_of(file: Path) -> Package:
    """What travels with an experiment's file: its folder, but for what git or Ray are told to leave out.

    Git itself says what it ignores: by the ``.gitignore`` files of the folder and of those above it, by
    ``.git/info/exclude`` and by the user's own settings. Outside of a repository it reads the folder's own
    ``.gitignore`` files. A ``.rayignore`` leaves out files that git knows, too.

    Raises:
        UserError: The file itself would not travel, or there is more than Ray takes.
    """
    folder = file.parent.resolve()
    files, left_out = _files_of(folder)
    package = Package(folder, tuple(sorted(files)), tuple(sorted(left_out)))
    if file.name not in files:
        message = "the file is among what stays here"
        hint = "a .gitignore, a .rayignore or git's own excludes name it: take it out there, or move it"
        raise UserError(Problem(message, "--submit", str(file), hint))
    if package.size > MOST:
        message = f"{shown(package.size)} would travel, and Ray takes {shown(MOST)}; largest: {package.largest()}"
        hint = "name in a .gitignore or .rayignore what trials do not need; data belongs where all machines see it"
        raise UserError(Problem(message, "--submit", str(folder), hint))
    return package


def _files_of(folder: Path) -> tuple[set[str], set[str]]:
    """Paths of the files that travel, and of the links to folders that do not."""
    never = [f"--exclude={pattern}" for pattern in _NEVER]
    with temporary.folder() as nowhere:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environment["LC_ALL"] = "C"  # its messages are read
        if not _is_in_repository(folder, environment):
            subprocess.run(["git", "init", "-q", "--bare", nowhere], env=environment, check=True, capture_output=True)
            environment |= {"GIT_DIR": str(nowhere), "GIT_WORK_TREE": str(folder)}

        def listed(*options: str) -> set[str]:
            command = ["git", "ls-files", "-z", "--cached", "--others", *options]
            told = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
            if told.returncode:
                message = f"git cannot tell what it ignores: {os.fsdecode(told.stderr).strip()}"
                raise UserError(Problem(message, "--submit", str(folder)))
            return {path for path in os.fsdecode(told.stdout).split("\0") if path}

        found = listed("--exclude-standard") - listed("--ignored", "--exclude-per-directory=.rayignore", *never)
    files, left_out = set(), set()
    for path in found:
        place = folder / path
        if place.is_file():
            files.add(path)
        elif place.is_symlink() and place.is_dir():
            left_out.add(path)
        elif (place / ".git").exists():  # a repository of its own, with its own say
            below = [{f"{path.rstrip('/')}/{each}" for each in some} for some in _files_of(place)]
            files |= below[0]
            left_out |= below[1]
    return files, left_out


def _is_in_repository(folder: Path, environment: dict[str, str]) -> bool:
    command = ["git", "rev-parse", "--is-inside-work-tree"]
    try:
        told = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        hint = "install git: it tells which files are to stay here"
        raise UserError(Problem("there is no git on this machine", "--submit", hint=hint)) from None
    if told.returncode and "not a git repository" not in told.stderr:  # one of somebody else's, or a broken one
        raise UserError(Problem(f"git does not say what it ignores: {told.stderr.strip()}", "--submit", str(folder)))
    return told.stdout.strip() == "true"
