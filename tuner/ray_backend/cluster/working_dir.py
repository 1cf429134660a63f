"""What of an experiment's folder travels to a cluster, as Ray's ``working_dir``: what no ``.gitignore`` names."""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

from tuner import user_code
from tuner.formatting import byte_size
from tuner.ray_backend.internals import internal
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.spec.experiment import ExperimentSpec
from tuner.storage import temporary
from tuner.storage.uris import masked

MOST = 500 * 2**20
"""Bytes that Ray takes; the package lies in the memory of the cluster's head."""

_NEVER = (
    *(".git/", ".venv/", "venv/", "__pycache__/", ".env", ".env.*", ".ray/"),
    *("runs/", "mlruns/", "mlartifacts/", "mlflow.db*"),
)
"""Patterns of what is no part of an experiment, and stays here where no ``.gitignore`` speaks of it, too."""

_IGNORES = (".gitignore", ".rayignore", ".git/info/exclude")


@dataclass(frozen=True)
class Package:
    """The files that travel: a folder's, and modules of the folder where the command was typed that its code imports.

    Args:
        folder: The experiment's folder.
        beside: The folder where the command was typed.
        root: The one of these that stands for the package's own root, or the folder above.
        files: Each file by its path in the package.
        left_out: Links to folders, which are not followed, and folders that cannot be read.
        missing: Files of code that trials need and that do not travel.
    """

    folder: Path
    beside: Path
    root: Path
    files: dict[str, Path]
    left_out: tuple[str, ...]
    missing: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.stat().st_size for file in self.files.values())

    def __str__(self) -> str:
        more = {file.relative_to(self.beside).parts[0] for file in self._others()}
        many = "1 file" if len(self.files) == 1 else f"{len(self.files)} files"
        of = f"{self.folder} and {', '.join(sorted(more))} of {self.beside}" if more else str(self.folder)
        without = f", without {', '.join(self.left_out)} (a link to a folder, or not readable)" if self.left_out else ""
        return f"{many} of {of}, {byte_size(self.size)}{without}"

    def write(self, path: Path) -> None:
        """Write it as a zip file: the same one for the same files, which Ray then has already."""
        with ZipFile(path, "w", ZIP_DEFLATED, strict_timestamps=False) as archive:
            for name, file in sorted(self.files.items()):
                archive.write(file, name)

    def too_large(self) -> str:
        """Why Ray does not take it; empty where it does."""
        if self.size <= MOST:
            return ""
        sizes: Counter[str] = Counter()
        others = self._others()
        for file in self.files.values():
            sizes[file.relative_to(self.beside if file in others else self.folder).parts[0]] += file.stat().st_size
        largest = ", ".join(f"{name} {byte_size(size)}" for name, size in sizes.most_common(3))
        return f"{byte_size(self.size)} would travel, and Ray takes {byte_size(MOST)}; largest: {largest}"

    def _others(self) -> set[Path]:
        return {file for file in self.files.values() if not file.is_relative_to(self.folder)}


def package_of(folder: Path, targets: Sequence[str]) -> Package:
    """What travels with an experiment.

    What is left out: what a ``.gitignore`` or ``.rayignore`` names, in the folder, below it, or above it in the same
    repository; and what is part of no experiment.

    Args:
        folder: The experiment's folder.
        targets: The user's own code that it needs.
    """
    beside = Path.cwd()
    root = beside if beside != folder and folder.is_relative_to(beside) else folder.parent
    left_out = list[str]()
    files = {str(file.relative_to(root)): file for file in _listed(folder, left_out)}
    needed = user_code.files_of(targets)
    others = {file for file in needed if file.is_relative_to(beside) and not file.is_relative_to(folder)}
    tops = {beside / file.relative_to(beside).parts[0] for file in others} - set(folder.parents)
    for file in sorted({*others, *(file for top in tops for file in _listed(top, left_out))}):
        files.setdefault(str(file.relative_to(beside)), file)
    missing = sorted(needed - set(files.values()))
    return Package(folder, beside, root, files, tuple(sorted(left_out)), tuple(missing))


@contextlib.contextmanager
def written(package: Package) -> Iterator[str]:
    """The package as a file, for Ray's ``working_dir``. Gone afterwards."""
    with temporary.folder() as there:
        package.write(there / "package.zip")
        yield str(there / "package.zip")


def password_in(spec: ExperimentSpec) -> str:
    """What is said of a password in the experiment's file, which travels; empty where there is none."""
    # It is not refused: who may read the package may run code on the head, where every other place of it is, too.
    has_one = masked(text := spec.to_yaml()) != text
    return f"the password in {spec.name}'s file is unpacked on every machine that trials run on" if has_one else ""


def user_folder(targets: Sequence[str], root: Path | None) -> UserFolder:
    """Where workers find code of the user's own.

    Args:
        targets: What they need of it.
        root: What of this machine stands for the ``working_dir`` of workers; None where they have none.
    """
    folder, *behind = user_code.folders()
    root = root if root is not None and folder.is_relative_to(root) else None
    return UserFolder(folder, tuple(behind), root, folder.stat().st_ino, user_code.digests(targets))


def unpacked() -> Path | None:
    """The working directory, where Ray has unpacked it for a job that was submitted: what its workers have, too."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    shipped = str((job.get("runtime_env") or {}).get("working_dir", ""))
    is_made = "://" in shipped and not shipped.startswith("local://")  # which is there before and after
    return Path.cwd().resolve() if is_made else None


def _listed(place: Path, left_out: list[str]) -> list[Path]:
    """The files in a folder, or a file itself, as far as they travel; what is not looked into goes to `left_out`."""
    ignores = [_Ignore(place.parent, _NEVER)]
    above = [place, *place.parents]
    top = next((at for at, folder in enumerate(above) if (folder / ".git").exists()), 0)
    for folder in above[1 : top + 1]:
        ignores += _ignores_in(folder)
    found = list[Path]()

    def look(path: Path, ignores: list[_Ignore]) -> None:
        is_folder = path.is_dir()
        if path != place and any(ignore.names(path, is_folder) for ignore in ignores):
            return
        if path.is_file():
            found.append(path)
        elif is_folder and path.is_symlink() and path != place:
            left_out.append(str(path.relative_to(place)))
        elif is_folder:
            try:
                inner, below = [*ignores, *_ignores_in(path)], sorted(path.iterdir())
            except PermissionError:
                left_out.append(str(path.relative_to(place)))
                return
            for each in below:
                look(each, inner)

    look(place, ignores)
    return found


class _Ignore:
    """Patterns of one ``.gitignore``, read as Ray reads them."""

    def __init__(self, folder: Path, lines: Iterable[str]) -> None:
        PathSpec = internal("PathSpec")  # noqa: N806

        self._folder = folder
        self._patterns: Any = PathSpec.from_lines("gitwildmatch", lines)

    def names(self, path: Path, is_folder: bool) -> bool:
        return bool(self._patterns.match_file(f"{path.relative_to(self._folder)}{'/' if is_folder else ''}"))


def _ignores_in(folder: Path) -> list[_Ignore]:
    files = [folder / name for name in _IGNORES if (folder / name).is_file()]
    return [_Ignore(folder, file.read_text(encoding="utf-8", errors="replace").splitlines()) for file in files]
