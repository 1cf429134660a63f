"""What can be known before anything is started: whether the record and the checkpoints can be written."""

import os
import tempfile
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import Request, urlopen

from tuner.address import MLFLOW_DEFAULT, default_uri, masked
from tuner.errors import Problem, UserError, allowed
from tuner.spec import ExperimentSpec

_PATIENCE = 5.0  # seconds that a server has to answer
_DATABASES = ("postgresql", "mysql", "mssql")


def tracking_uri(spec: ExperimentSpec) -> str:
    """Where the record is kept: the file's ``tracking.uri``, else MLflow's default."""
    return spec.tracking.uri or default_uri()


def check_store(uri: str) -> None:
    """Make sure that MLflow's store can be reached and written.

    Raises:
        UserError: It cannot.
    """
    scheme = urlparse(uri).scheme.split("+")[0]
    if scheme in ("http", "https"):
        _check_server(uri)
    elif scheme in _DATABASES:
        _check_database(uri)
    elif scheme == "sqlite":
        _check_writable(Path(uri.removeprefix("sqlite:///")), "tracking.uri", uri, is_file=True)
    elif scheme in ("", "file"):
        _check_writable(Path(uri.removeprefix("file://")), "tracking.uri", uri)
    elif scheme != "databricks":
        hint = allowed(scheme, ("sqlite", "http", "https", "file", "databricks", *_DATABASES))
        raise UserError(Problem(f"{scheme!r} is no store that MLflow knows", "tracking.uri", masked(uri), hint))


def check_storage(storage: str) -> None:
    """Make sure that a local folder for checkpoints can be written. A remote one answers when it is used.

    Raises:
        UserError: It cannot.
    """
    if "://" not in storage:
        _check_writable(Path(storage), "storage", storage)


def _check_server(uri: str) -> None:
    try:
        with urlopen(Request(f"{uri.rstrip('/')}/health"), timeout=_PATIENCE):
            pass
    except OSError as error:
        why = getattr(error, "reason", None) or error
        problem = Problem(f"no tracking server answers: {why}", "tracking.uri", masked(uri), _other_store())
        raise UserError(problem) from None


def _check_database(uri: str) -> None:
    import sqlalchemy

    try:
        sqlalchemy.create_engine(uri).connect().close()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        why = masked(str(error).splitlines()[0])
        problem = Problem(f"the store cannot be reached: {why}", "tracking.uri", masked(uri), _other_store())
        raise UserError(problem) from None


def _other_store() -> str:
    return f"set tracking.uri or MLFLOW_TRACKING_URI; without them the record goes to {MLFLOW_DEFAULT}"


def _check_writable(path: Path, key: str, shown: str, *, is_file: bool = False) -> None:
    """Write a nameless file where `path` is or would be made: permissions alone do not tell of a read-only disk."""
    folder = path.parent if is_file else path
    while not folder.exists():
        folder = folder.parent
    why = ""
    if is_file and path.exists() and not os.access(path, os.W_OK):
        why = f"{path} cannot be written"
    elif not folder.is_dir():
        why = f"{folder} is not a folder"
    else:
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            why = f"{folder} cannot be written: {error.strerror}"
    if why:
        raise UserError(Problem(why, key, shown, "choose another folder"))
