"""A SQLite store of MLflow that was moved or copied together with its artifacts.

MLflow stores the paths of artifacts as absolute paths. In a copy of a project they point to the original, whose files
would be overwritten; in a project that was moved they point to a folder that no longer exists and that MLflow would
create again.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tuner.storage.uris import absolute, sqlite_file

_ARTIFACTS = "mlruns"
"""MLflow's name for the folder of artifacts, which it creates in the working directory beside its default store."""

_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Columns of MLflow's database with paths of artifacts."""


def relocate(uri: str, *, to_write: bool = False) -> str:
    """Change the paths of artifacts in a store to the folder ``mlruns`` beside it, if the artifacts are there now.

    Args:
        uri: MLflow's tracking URI.
        to_write: Whether artifacts are about to be written. Then the paths also change if the store was moved or copied
            without its artifacts: else new ones would go into a deleted project, or into the original.

    Returns:
        A message for the user on what changed; empty if nothing did.
    """
    file = sqlite_file(absolute(uri))
    if file is None or not file.is_file():
        return ""
    artifacts = file.parent / _ARTIFACTS
    if not (to_write or artifacts.is_dir()):
        return ""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(file, timeout=60)) as database:
        roots = {root for root in _roots(database) if root and not _is_same(_place(root), artifacts)}
        # A folder beside the store that has none of its runs belongs to another store.
        moved = {root for root in roots if _holds_runs_of(database, root, artifacts)}
        left = {root for root in roots - moved if to_write and _is_of_other_store(database, root, file)}
        for root in moved | left:
            _replace(database, root, f"file://{artifacts}" if root.startswith("file:") else str(artifacts))
        database.commit()
        messages = []
        if moved:
            messages += [f"MLflow's artifacts have moved from {_listed(moved)} to {artifacts}: the store was updated"]
        if left:
            messages += [
                f"MLflow's store {file} was moved or copied without its artifacts, which were in {_listed(left)}: new "
                f"artifacts go to {artifacts}; copy those of earlier runs there, too"
            ]
        return "; ".join(messages)
    return ""


def _is_same(place: Path, artifacts: Path) -> bool:
    """Return whether two paths name one folder, also by way of a link or a mount."""
    try:
        return place == artifacts or place.samefile(artifacts)
    except OSError:
        return False


def _listed(roots: set[str]) -> str:
    return ", ".join(sorted(roots))


def _is_of_other_store(database: sqlite3.Connection, root: str, file: Path) -> bool:
    """Return whether artifacts belong to a deleted project, or to the store from which this one was copied."""
    project = _place(root).parent
    other = project / file.name
    if not project.exists():
        return True
    if not other.is_file() or other.samefile(file):
        return False
    query = "SELECT run_uuid FROM runs WHERE substr(artifact_uri, 1, ?) = ?"
    with contextlib.closing(sqlite3.connect(f"{other.resolve().as_uri()}?mode=ro", uri=True, timeout=60)) as original:
        original_runs = set(original.execute(query, (len(root) + 1, f"{root}/")))
    return bool(original_runs & set(database.execute(query, (len(root) + 1, f"{root}/"))))


def _roots(database: sqlite3.Connection) -> Iterator[str]:
    """Yield the folders ``mlruns`` that contain the artifacts of experiments."""
    for (place,) in database.execute("SELECT artifact_location FROM experiments"):
        root, name, _ = str(place).rpartition(f"/{_ARTIFACTS}/")
        if name and (root.startswith("/") or root.startswith("file:/")):
            yield f"{root}/{_ARTIFACTS}"


def _place(root: str) -> Path:
    return Path(unquote(urlsplit(root).path) if root.startswith("file:") else root)


def _holds_runs_of(database: sqlite3.Connection, root: str, artifacts: Path) -> bool:
    uris = database.execute("SELECT artifact_uri FROM runs WHERE substr(artifact_uri, 1, ?) = ?", (len(root), root))
    return any(Path(f"{artifacts}{unquote(str(uri)[len(root) :])}").parent.is_dir() for (uri,) in uris)


def _replace(database: sqlite3.Connection, root: str, by: str) -> None:
    for table, column in _PLACES:
        known = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        if column in known:
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (by, len(root) + 1, len(root) + 1, f"{root}/"),
            )
