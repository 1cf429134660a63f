"""A SQLite store of MLflow's that was moved or copied together with its artifacts.

MLflow keeps the places of artifacts as whole paths. In a copy of a project they lead into the original, whose files
would be overwritten; in a project that was moved they lead to where nothing is, and MLflow makes that folder anew.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tuner.storage.uris import absolute, sqlite_file

_ARTIFACTS = "mlruns"
"""MLflow's name for the folder of artifacts, which it makes in the working directory beside its default store."""

_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Columns of MLflow's database that hold places of artifacts."""


def relocate(uri: str, *, to_write: bool = False) -> str:
    """Have a store look for its artifacts in the folder ``mlruns`` beside it, where they lie there by now.

    Args:
        uri: MLflow's tracking URI.
        to_write: Whether artifacts are about to be written: then it is also done where the store was moved or copied
            without them, and they would be written into a project that is not there, or is the original.

    Returns:
        What was done, for the user; empty where nothing was.
    """
    file = sqlite_file(absolute(uri))
    if file is None or not file.is_file():
        return ""
    artifacts = file.parent / _ARTIFACTS
    if not (to_write or artifacts.is_dir()):
        return ""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(file, timeout=60)) as database:
        roots = {root for root in _roots(database) if root and not _is_same(_place(root), artifacts)}
        # Where the folder beside the store has none of its runs, it is another store's.
        moved = {root for root in roots if _holds_runs_of(database, root, artifacts)}
        left = {root for root in roots - moved if to_write and _is_anothers(database, root, file)}
        for root in moved | left:
            _replace(database, root, f"file://{artifacts}" if root.startswith("file:") else str(artifacts))
        database.commit()
        told = []
        if moved:
            told += [f"MLflow's artifacts lie in {artifacts} by now, not in {_listed(moved)}: the store knows"]
        if left:
            told += [
                f"MLflow's store {file} was moved or copied without its artifacts, which lay in {_listed(left)}: from "
                f"now on they go to {artifacts}, and those of earlier runs are found if you copy them there"
            ]
        return "; ".join(told)
    return ""


def _is_same(place: Path, artifacts: Path) -> bool:
    """Whether two names are of one folder: a link and a mount give one several."""
    try:
        return place == artifacts or place.samefile(artifacts)
    except OSError:
        return False


def _listed(roots: set[str]) -> str:
    return ", ".join(sorted(roots))


def _is_anothers(database: sqlite3.Connection, root: str, file: Path) -> bool:
    """Whether artifacts belong to a project that is gone, or to the store that this one was copied from."""
    project = _place(root).parent
    other = project / file.name
    if not project.exists():
        return True
    if not other.is_file() or other.samefile(file):
        return False
    there = "SELECT run_uuid FROM runs WHERE substr(artifact_uri, 1, ?) = ?"
    with contextlib.closing(sqlite3.connect(f"{other.resolve().as_uri()}?mode=ro", uri=True, timeout=60)) as original:
        theirs = set(original.execute(there, (len(root) + 1, f"{root}/")))
    return bool(theirs & set(database.execute(there, (len(root) + 1, f"{root}/"))))


def _roots(database: sqlite3.Connection) -> Iterator[str]:
    """The folders ``mlruns`` that experiments have their artifacts in."""
    for (place,) in database.execute("SELECT artifact_location FROM experiments"):
        root, name, _ = str(place).rpartition(f"/{_ARTIFACTS}/")
        if name and (root.startswith("/") or root.startswith("file:/")):
            yield f"{root}/{_ARTIFACTS}"


def _place(root: str) -> Path:
    return Path(unquote(urlsplit(root).path) if root.startswith("file:") else root)


def _holds_runs_of(database: sqlite3.Connection, root: str, artifacts: Path) -> bool:
    there = database.execute("SELECT artifact_uri FROM runs WHERE substr(artifact_uri, 1, ?) = ?", (len(root), root))
    return any(Path(f"{artifacts}{unquote(str(uri)[len(root) :])}").parent.is_dir() for (uri,) in there)


def _replace(database: sqlite3.Connection, root: str, by: str) -> None:
    for table, column in _PLACES:
        known = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        if column in known:
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (by, len(root) + 1, len(root) + 1, f"{root}/"),
            )
