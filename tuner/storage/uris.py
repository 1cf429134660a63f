"""URIs of tracking stores and of the files of jobs, and how to show them without passwords."""

import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

MLFLOW_DEFAULT = "sqlite:///mlflow.db"
"""MLflow's own default store, in the working directory."""

_SECRET = "[a-z_]*(?:password|passwd|pwd|secret|token)[a-z_]*|(?:access|account)_key"
"""Options of a URI that hold secrets."""


def default_uri() -> str:
    """MLflow's default tracking URI: MLFLOW_TRACKING_URI if set, else MLFLOW_DEFAULT."""
    return os.environ.get("MLFLOW_TRACKING_URI") or MLFLOW_DEFAULT


def absolute(uri: str) -> str:
    """A tracking URI without relative paths, so that it does not depend on the working directory."""
    for prefix in ("sqlite:///", "file:"):
        path = uri.removeprefix(prefix)
        if uri.startswith(prefix) and not path.startswith("/") and path != ":memory:":
            return f"{prefix}{Path(path).resolve()}"
    return uri if ":" in uri or uri == "databricks" else str(Path(uri).resolve())


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None for any other store."""
    path = uri.partition("?")[0].removeprefix("sqlite:///")
    return Path(path) if uri.startswith("sqlite:///") else None


def local_path(uri: str) -> Path:
    """The path of a local store: the file of an SQLite store, or the folder of a file store."""
    if uri.startswith("file:"):
        return Path(unquote(uri.removeprefix("file:").removeprefix("//")))
    return sqlite_file(uri) or Path(uri.partition("?")[0])


def masked(text: str) -> str:
    """Replace the passwords in a URI, or in the URIs in a text, by ``***``: for output and records."""
    text = re.sub(r"(://[^:/@\s]*):[^@/\s]+@", r"\1:***@", text)
    return re.sub(rf"([?&](?:{_SECRET})=)[^&\s'\"]+", r"\1***", text, flags=re.IGNORECASE)


def holds_secret(uri: str) -> bool:
    """Whether a URI holds a user name, a password or another secret."""
    host = uri.partition("://")[2].partition("/")[0]
    return masked(uri) != uri or "@" in host


def is_inside(location: str, folder: str) -> bool:
    """Whether a path or URI lies below a folder after links and ``..`` are resolved; neither needs to exist."""
    try:
        (scheme, path), (other, parent) = _scheme_and_path(location), _scheme_and_path(folder)
        if {scheme, other} <= {"", "file"}:
            other = scheme
            path, parent = (PurePosixPath(Path(each).resolve()) for each in (path, parent))
        return scheme == other and ".." not in path.parts and path != parent and path.is_relative_to(parent)
    except (ValueError, OSError, RuntimeError):  # not a path; a cycle of links
        return False


def _scheme_and_path(location: str) -> tuple[str, PurePosixPath]:
    """The scheme of a URI, and its host and path without a password; the scheme of a plain path is empty."""
    if "://" not in location:
        return "", PurePosixPath(location)
    uri = urlsplit(location)
    return uri.scheme, PurePosixPath(f"{uri.netloc.rpartition('@')[2]}{unquote(uri.path)}")
