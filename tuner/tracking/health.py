"""Whether there is a store of MLflow, whether it answers, and what it means when it refuses."""

import sqlite3
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from tuner.errors import Problem, UserError, allowed
from tuner.storage.uris import MLFLOW_DEFAULT, local_path, masked

_PATIENCE = 5.0  # seconds that a server has to answer; MLflow itself would try for minutes
_DATABASES = ("postgresql", "mysql", "mssql")
_KINDS = ("sqlite", "http", "https", "file", "databricks", *_DATABASES)
_DRIVERS = {"psycopg": "psycopg[binary]", "MySQLdb": "mysqlclient"}
_SIGN_IN = (401, 403)  # a server that asks who we are has answered
_HINT = (
    f"say where it is with --uri or MLFLOW_TRACKING_URI; without them it is {MLFLOW_DEFAULT}, "
    "in the folder that the command is given in"
)


def check_reachable(uri: str) -> None:
    """Make sure that there is a store to read, so that none is made and no answer is waited for.

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
    """Whether a store is more than a place where one will be; that of a server or a database always is."""
    return kind_of(uri) != "sqlite" or local_path(uri).is_file()


def kind_of(uri: str, key: str = "") -> str:
    """The kind of a store: one of http, https, sqlite, file, databricks, or of a database's name.

    Args:
        uri: MLflow's tracking URI.
        key: Of the specification, for an error to point to.

    Raises:
        UserError: MLflow knows no such kind.
    """
    kind = urlsplit(uri).scheme.split("+")[0] or "file"
    if kind not in _KINDS:
        raise UserError(Problem(f"{kind!r} is no store that MLflow knows", key, masked(uri), allowed(kind, _KINDS)))
    return kind


def unanswered(uri: str) -> str:
    """Why a server or a database does not answer; empty where it does, and for other kinds."""
    kind = kind_of(uri)
    if kind in ("http", "https"):
        return _server(uri)
    return _database(uri) if kind in _DATABASES else ""


def _server(uri: str) -> str:
    """Why a tracking server does not answer; empty where it does."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]  # urlopen takes a name and password for a part of the host's name
    address = urlunsplit((parts.scheme, host, f"{parts.path.rstrip('/')}/health", "", ""))
    try:
        with urlopen(Request(address), timeout=_PATIENCE):
            return ""
    except HTTPError as error:
        return "" if error.code in _SIGN_IN else f"no tracking server answers, but something else: {error}"
    except (OSError, ValueError) as error:
        return f"no tracking server answers: {getattr(error, 'reason', None) or error}"


def _file(path: Path) -> str:
    """Why a file is no store of MLflow; empty where it is."""
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
    """Why a database cannot be reached; empty where it can."""
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
    """A message and a hint for an error of MLflow or of what lies below it.

    Args:
        error: What was raised.
        uri: The store.

    Returns:
        None if it is no error of a store but one of ours.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if not isinstance(error, MlflowException | SQLAlchemyError | OSError):
        return None
    text = masked((str(error).strip() or type(error).__name__).splitlines()[0])
    if isinstance(error, MlflowException):
        if error.get_http_status_code() in _SIGN_IN:
            return f"the server asks who we are: {text}", f"say so in the environment, with {_SECRETS}"
        if "database schema" in text:
            shown = masked(uri)
            hint = (
                f"keep a copy of it, then: mlflow db upgrade {shown}; where another MLflow still writes it, "
                "install the same version here"
            )
            return f"the store was made by another version of MLflow: {text.partition('. ')[0]}", hint
    return text, ""


def is_conflict(error: Exception) -> bool:
    """Whether a database refused a row because another writer has just added the same one."""
    return "IntegrityError" in str(error) or "UniqueViolation" in str(error) or "Duplicate entry" in str(error)
