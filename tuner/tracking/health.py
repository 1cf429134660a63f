"""Checks that a store of MLflow exists and answers, and messages for its errors."""

import sqlite3
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from tuner.errors import Problem, UserError, allowed
from tuner.storage.uris import MLFLOW_DEFAULT, local_path, masked

_TIMEOUT = 5.0  # seconds that a server has to answer; MLflow itself would try for minutes
_DATABASES = ("postgresql", "mysql", "mssql")
_KINDS = ("sqlite", "http", "https", "file", "databricks", *_DATABASES)
_DRIVERS = {"psycopg": "psycopg[binary]", "MySQLdb": "mysqlclient"}
_UNAUTHENTICATED = (401, 403)  # a server that asks for authentication has answered
_HINT = f"give its URI with --uri or MLFLOW_TRACKING_URI; the default is {MLFLOW_DEFAULT} in the working directory"


def check_reachable(uri: str) -> None:
    """Check that a store exists and answers: MLflow would create one, or wait for minutes.

    Raises:
        UserError: There is none, or it does not answer.
    """
    kind = kind_of(uri)
    why = ""
    if kind == "sqlite":
        why = _file(local_path(uri))
    elif kind == "file":
        folder = local_path(uri)
        why = "" if folder.is_dir() else f"there is no folder {folder}"
    else:
        why = unanswered(uri)
    if why:
        raise UserError(Problem(f"there is no store to read: {why}", where=masked(uri), hint=_HINT))


def is_there(uri: str) -> bool:
    """Return whether a store exists; one on a server or in a database counts as existing."""
    return kind_of(uri) != "sqlite" or local_path(uri).is_file()


def kind_of(uri: str, key: str = "") -> str:
    """Return the kind of a store: http, https, sqlite, file, databricks, or the name of a database.

    Args:
        uri: MLflow's tracking URI.
        key: The key of the experiment's file that has the URI, for errors.

    Raises:
        UserError: MLflow has no such kind.
    """
    kind = urlsplit(uri).scheme.split("+")[0] or "file"
    if kind not in _KINDS:
        raise UserError(Problem(f"{kind!r} is no store that MLflow knows", key, masked(uri), allowed(kind, _KINDS)))
    return kind


def unanswered(uri: str) -> str:
    """Return why a server or a database does not answer; empty if it does, and for other kinds."""
    kind = kind_of(uri)
    if kind in ("http", "https"):
        return _server(uri)
    return _database(uri) if kind in _DATABASES else ""


def _server(uri: str) -> str:
    """Return why a tracking server does not answer; empty if it does."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]  # urlopen would treat name and password as part of the host's name
    address = urlunsplit((parts.scheme, host, f"{parts.path.rstrip('/')}/health", "", ""))
    try:
        with urlopen(Request(address), timeout=_TIMEOUT):
            return ""
    except HTTPError as error:
        return "" if error.code in _UNAUTHENTICATED else f"no tracking server answers, but something else: {error}"
    except (OSError, ValueError) as error:
        return f"no tracking server answers: {getattr(error, 'reason', None) or error}"


def _file(path: Path) -> str:
    """Return why a file is no store of MLflow; empty if it is one."""
    if not path.is_file():
        return f"there is no file {path}"
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            found = connection.execute("SELECT name FROM sqlite_master WHERE name = 'experiments'").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        return f"{path}: {error}"
    return "" if found else f"{path} holds no record of MLflow"


def _database(uri: str) -> str:
    """Return why a database cannot be reached; empty if it can."""
    import sqlalchemy

    try:
        sqlalchemy.create_engine(uri).connect().close()
    except ModuleNotFoundError as error:
        return f"its driver is not installed: pip install '{_DRIVERS.get(error.name or '', error.name)}'"
    except sqlalchemy.exc.SQLAlchemyError as error:
        return masked(str(error).splitlines()[0])
    return ""


_SECRETS = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


def refusal(error: Exception, uri: str) -> tuple[str, str] | None:
    """Return a message and a hint for an error of MLflow, of its database or of the operating system.

    Args:
        error: The exception.
        uri: The store's URI.

    Returns:
        None if it is another exception, and thus a bug of tuner.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if not isinstance(error, MlflowException | SQLAlchemyError | OSError):
        return None
    text = masked((str(error).strip() or type(error).__name__).splitlines()[0])
    if isinstance(error, MlflowException):
        if error.get_http_status_code() in _UNAUTHENTICATED:
            return f"the server requires authentication: {text}", f"set in the environment: {_SECRETS}"
        if "database schema" in text:
            shown = masked(uri)
            hint = (
                f"keep a copy of it, then: mlflow db upgrade {shown}; if another MLflow still writes to it, "
                "install the same version here"
            )
            return f"another version of MLflow created the store: {text.partition('. ')[0]}", hint
    return text, ""


def is_conflict(error: Exception) -> bool:
    """Return whether a database rejected a row because another writer has just added the same one."""
    return "IntegrityError" in str(error) or "UniqueViolation" in str(error) or "Duplicate entry" in str(error)
