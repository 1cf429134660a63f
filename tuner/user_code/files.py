"""The files of the user's code: which ones targets import, and what is in them."""

import ast
import contextlib
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tuner.user_code import folders, imported
from tuner.user_code.places import file_of, is_installed, with_packages


def files_of(targets: Iterable[str]) -> set[Path]:
    """The user's files that these targets import, directly or indirectly, at once or later; no installed files.

    Raises:
        Mistakes: As `resolve`.
    """
    return set(_modules_of(targets).values())


def sources_of(targets: Iterable[str]) -> dict[str, bytes]:
    """The contents of `files_of` these targets, by their paths in a folder from which the targets can be imported.

    Raises:
        Mistakes: As `resolve`.
    """
    sources = {}
    for name, file in sorted(_modules_of(targets).items()):
        path = name.replace(".", "/")
        sources[f"{path}/{file.name}" if file.name == "__init__.py" else f"{path}.py"] = file.read_bytes()
    return sources


def _modules_of(targets: Iterable[str]) -> dict[str, Path]:
    """The files of `files_of`, by the names of their modules."""
    pending = []
    for target in targets:
        module = imported(target.partition(":")[0])
        files = {name: getattr(sys.modules.get(name), "__file__", None) for name in with_packages(module.__name__)}
        pending += [(name, Path(file)) for name, file in files.items() if file]
    found: dict[str, Path] = {}
    while pending:
        name, file = pending.pop()
        if name in found or file.suffix != ".py" or not file.is_file() or is_installed(file):
            continue
        found[name] = file
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        with contextlib.suppress(SyntaxError):  # raised when it is imported
            names = _named_in(importlib.util.decode_source(file.read_bytes()), package)
            pending += [(each, path) for each in names if (path := file_of(each, folders())) is not None]
    return found


def digests(targets: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of each of the user's files that these targets import, by its path relative to its search folder.

    Raises:
        Mistakes: As `resolve`.
    """
    found = {}
    for file in sorted(files_of(targets)):
        folder = next((folder for folder in folders() if file.is_relative_to(folder)), None)
        found[str(file.relative_to(folder) if folder else file)] = digest(file)
    return found


def digest(file: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _named_in(text: str, package: str) -> Iterator[str]:
    """The names of all modules that source code in `package` may import, and of their parent packages."""
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(filter(None, [*parents, node.module]))
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            yield from with_packages(name.strip("."))
