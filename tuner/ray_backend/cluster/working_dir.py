"""The files of an experiment that Ray uploads to a cluster as ``working_dir``: those that no ``.gitignore`` names."""

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
from tuner.formatting import byte_size, counted
from tuner.ray_backend.internals import internal
from tuner.ray_backend.worker.user_folder import UserFolder
from tuner.spec.experiment import ExperimentSpec
from tuner.storage import temporary
from tuner.storage.uris import masked
from tuner.user_code.files import digests, files_of

MOST = 500 * 2**20
"""The most bytes that Ray accepts; it keeps the package in the memory of the cluster's head node."""

_NEVER = (
    *(".git/", ".venv/", "venv/", "__pycache__/", ".env", ".env.*", ".ray/"),
    *("runs/", "mlruns/", "mlartifacts/", "mlflow.db*"),
)
"""Patterns of files that are never uploaded, also if no ``.gitignore`` names them."""

_IGNORES = (".gitignore", ".rayignore", ".git/info/exclude")


@dataclass(frozen=True)
class Package:
    """The files to upload: a folder's, and the modules that its code imports from the command's working directory.

    Args:
        folder: The experiment's folder.
        beside: The working directory of the command.
        root: The local folder that corresponds to the root of the package: `beside` or the parent of `folder`.
        files: Each file by its path in the package.
        left_out: Links to folders, which are not followed, and folders that cannot be read.
        missing: Files of code that trials need and that are not uploaded.
    """

    folder: Path
    beside: Path
    root: Path
    files: dict[str, Path]
    left_out: tuple[str, ...]
    missing: tuple[Path, ...]

    @property
    def size(self) -> int:
        """The size of all files together in bytes."""
        return sum(file.stat().st_size for file in self.files.values())

    def __str__(self) -> str:
        more = {file.relative_to(self.beside).parts[0] for file in self._outside_folder()}
        many = counted(len(self.files), "file")
        of = f"{self.folder} and {', '.join(sorted(more))} of {self.beside}" if more else str(self.folder)
        without = f", without {', '.join(self.left_out)} (a link to a folder, or not readable)" if self.left_out else ""
        return f"{many} of {of}, {byte_size(self.size)}{without}"

    def write(self, path: Path) -> None:
        """Write a zip file. Equal files give an equal zip file, which Ray does not upload again."""
        with ZipFile(path, "w", ZIP_DEFLATED, strict_timestamps=False) as archive:
            for name, file in sorted(self.files.items()):
                archive.write(file, name)

    def too_large(self) -> str:
        """Return why Ray does not accept the package; empty if it does."""
        if self.size <= MOST:
            return ""
        sizes: Counter[str] = Counter()
        others = self._outside_folder()
        for file in self.files.values():
            sizes[file.relative_to(self.beside if file in others else self.folder).parts[0]] += file.stat().st_size
        largest = ", ".join(f"{name} {byte_size(size)}" for name, size in sizes.most_common(3))
        return f"{byte_size(self.size)} would travel, and Ray takes {byte_size(MOST)}; largest: {largest}"

    def _outside_folder(self) -> set[Path]:
        return {file for file in self.files.values() if not file.is_relative_to(self.folder)}


def package_of(folder: Path, targets: Sequence[str]) -> Package:
    """List the files to upload for an experiment.

    This leaves out the files that a ``.gitignore`` or ``.rayignore`` names, in the folder, below it, or above it in the
    same repository, and the files that `_NEVER` names.

    Args:
        folder: The experiment's folder.
        targets: Import paths of the user's own code that the experiment needs.
    """
    beside = Path.cwd()
    root = beside if beside != folder and folder.is_relative_to(beside) else folder.parent
    left_out = list[str]()
    files = {str(file.relative_to(root)): file for file in _listed(folder, left_out)}
    needed = files_of(targets)
    others = {file for file in needed if file.is_relative_to(beside) and not file.is_relative_to(folder)}
    tops = {beside / file.relative_to(beside).parts[0] for file in others} - set(folder.parents)
    for file in sorted({*others, *(file for top in tops for file in _listed(top, left_out))}):
        files.setdefault(str(file.relative_to(beside)), file)
    missing = sorted(needed - set(files.values()))
    return Package(folder, beside, root, files, tuple(sorted(left_out)), tuple(missing))


@contextlib.contextmanager
def written(package: Package) -> Iterator[str]:
    """Write the package to a temporary file for Ray's ``working_dir``, and yield its path."""
    with temporary.folder() as folder:
        package.write(folder / "package.zip")
        yield str(folder / "package.zip")


def password_in(spec: ExperimentSpec) -> str:
    """Return a warning if the experiment's file, which is uploaded, contains a password; empty if not."""
    # No error: whoever can read the package can also run code on the head node and find the password elsewhere there.
    has_one = masked(text := spec.to_yaml()) != text
    return f"the password in {spec.name}'s file is unpacked on every machine that trials run on" if has_one else ""


def user_folder(targets: Sequence[str], root: Path | None) -> UserFolder:
    """Return the folders in which workers find code of the user's own.

    Args:
        targets: Import paths of the code that trials need.
        root: The local folder that corresponds to the workers' ``working_dir``; None if they have none.
    """
    folder, *behind = user_code.folders()
    root = root if root is not None and folder.is_relative_to(root) else None
    return UserFolder(folder, tuple(behind), root, folder.stat().st_ino, digests(targets))


def unpacked() -> Path | None:
    """Return the working directory if Ray unpacked it for a submitted Ray job (its workers have it, too), else None."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    uri = str((job.get("runtime_env") or {}).get("working_dir", ""))
    is_unpacked = "://" in uri and not uri.startswith("local://")  # `local://` is an existing folder of the node
    return Path.cwd().resolve() if is_unpacked else None


def _listed(start: Path, left_out: list[str]) -> list[Path]:
    """Return the files to upload of a folder, or of a single file; add the folders that are skipped to `left_out`."""
    ignores = [_Ignore(start.parent, _NEVER)]
    above = [start, *start.parents]
    top = next((at for at, folder in enumerate(above) if (folder / ".git").exists()), 0)
    for folder in above[1 : top + 1]:
        ignores += _ignores_in(folder)
    found = list[Path]()

    def visit(path: Path, ignores: list[_Ignore]) -> None:
        is_folder = path.is_dir()
        if path != start and any(ignore.names(path, is_folder) for ignore in ignores):
            return
        if path.is_file():
            found.append(path)
        elif is_folder and path.is_symlink() and path != start:
            left_out.append(str(path.relative_to(start)))
        elif is_folder:
            try:
                inner, below = [*ignores, *_ignores_in(path)], sorted(path.iterdir())
            except PermissionError:
                left_out.append(str(path.relative_to(start)))
                return
            for each in below:
                visit(each, inner)

    visit(start, ignores)
    return found


class _Ignore:
    """The patterns of one ``.gitignore``, interpreted as Ray does."""

    def __init__(self, folder: Path, lines: Iterable[str]) -> None:
        PathSpec = internal("PathSpec")  # noqa: N806

        self._folder = folder
        self._patterns: Any = PathSpec.from_lines("gitwildmatch", lines)

    def names(self, path: Path, is_folder: bool) -> bool:
        return bool(self._patterns.match_file(f"{path.relative_to(self._folder)}{'/' if is_folder else ''}"))


def _ignores_in(folder: Path) -> list[_Ignore]:
    files = [folder / name for name in _IGNORES if (folder / name).is_file()]
    return [_Ignore(folder, file.read_text(encoding="utf-8", errors="replace").splitlines()) for file in files]
