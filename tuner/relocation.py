"""A SQLite store of MLflow's that was moved or copied together with its artifacts.

MLflow keeps the places of artifacts as whole paths. In a copy of a project they lead into the original, whose files
would be overwritten; in a project that was moved they lead to where nothing is, and MLflow makes that folder anew.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tuner.address import absolute

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


def relocate(uri: str) -> str:
    """Have a store look for its artifacts in the folder ``mlruns`` beside it, where they lie there by now.

    Args:
        uri: MLflow's tracking URI.

    Returns:
        What was done, for the user; empty where nothing was.
    """
    file = absolute(uri).removeprefix("sqlite:///")
    artifacts = Path(file).parent / _ARTIFACTS
    if not uri.startswith("sqlite:///") or not Path(file).is_file() or not artifacts.is_dir():
        return ""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(file, timeout=60)) as database:
        moved = {root for root in _roots(database) if root and _place(root) != artifacts}
        # Where the folder beside the store has none of its runs, it is another store's.
        moved = {root for root in moved if _holds_runs_of(database, root, artifacts)}
        for root in moved:
            _replace(database, root, f"file://{artifacts}" if root.startswith("file:") else str(artifacts))
        database.commit()
        if moved:
            return f"MLflow's artifacts lie in {artifacts} by now, not in {', '.join(sorted(moved))}: the store knows"
    return ""


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
