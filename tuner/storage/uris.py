"""Where MLflow's store and a job's files are, and how that may be shown."""

import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

MLFLOW_DEFAULT = "sqlite:///mlflow.db"
"""MLflow's own default store, in the working directory."""

_SECRET = "[a-z_]*(?:password|passwd|pwd|secret|token)[a-z_]*|(?:access|account)_key"
"""Options of a URI that are nobody else's business."""


def default_uri() -> str:
    """Where MLflow looks unless it is told otherwise: MLFLOW_TRACKING_URI, else its default."""
    return os.environ.get("MLFLOW_TRACKING_URI") or MLFLOW_DEFAULT


def absolute(uri: str) -> str:
    """A tracking URI that means the same in every working directory of this machine."""
    for begin in ("sqlite:///", "file:"):
        place = uri.removeprefix(begin)
        if uri.startswith(begin) and not place.startswith("/") and place != ":memory:":
            return f"{begin}{Path(place).resolve()}"
    return uri if ":" in uri or uri == "databricks" else str(Path(uri).resolve())


def local_path(uri: str) -> Path:
    """The file or folder of a store on this machine: of SQLite's file, or a folder of files."""
    if uri.startswith("file:"):
        return Path(unquote(uri.removeprefix("file:").removeprefix("//")))
    return Path(uri.partition("?")[0].removeprefix("sqlite:///"))


def masked(text: str) -> str:
    """A URI, or text with URIs in it, without the passwords: for everything that is shown or recorded."""
    text = re.sub(r"(://[^:/@\s]*):[^@/\s]+@", r"\1:***@", text)
    return re.sub(rf"([?&](?:{_SECRET})=)[^&\s'\"]+", r"\1***", text, flags=re.IGNORECASE)


def holds_secret(uri: str) -> bool:
    """Whether a URI holds a name, a password or the like: what is shown and recorded should not."""
    host = uri.partition("://")[2].partition("/")[0]
    return masked(uri) != uri or "@" in host


def is_inside(place: str, folder: str) -> bool:
    """Whether a path or URI lies below a folder, links and ``..`` followed; neither needs to be there."""
    try:
        (scheme, path), (other, above) = _parts(place), _parts(folder)
        if {scheme, other} <= {"", "file"}:
            other = scheme
            path, above = (PurePosixPath(Path(each).resolve()) for each in (path, above))
        return scheme == other and ".." not in path.parts and path != above and path.is_relative_to(above)
    except (ValueError, OSError, RuntimeError):  # no path at all; links in a circle
        return False


def _parts(place: str) -> tuple[str, PurePosixPath]:
    """The scheme of a URI and its path, the host in front and no password; of a plain path no scheme."""
    if "://" not in place:
        return "", PurePosixPath(place)
    parts = urlsplit(place)
    return parts.scheme, PurePosixPath(f"{parts.netloc.rpartition('@')[2]}{unquote(parts.path)}")
