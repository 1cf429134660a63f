"""Files that a user names for a command to write."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tuner.errors import Problem, UserError

_KEY = "--output"


def check_writable(path: Path, example: str = "report.html") -> None:
    """Check that a file can be written, as far as that is known before it is.

    Args:
        path: The file.
        example: The name of such a file.

    Raises:
        UserError: It cannot.
    """
    if not path.parent.is_dir():
        raise UserError(Problem(f"there is no folder {path.parent}", _KEY, hint="create it first"))
    with writing(path):
        if path.is_dir():
            raise UserError(Problem(f"{path} is a folder", _KEY, hint=f"name a file, such as {path / example}"))
        is_there = path.exists()
    if not os.access(path if is_there else path.parent, os.W_OK):
        raise UserError(Problem(f"{path} cannot be written", _KEY, hint="name a file elsewhere"))


def check_folder(path: Path) -> None:
    """Check that files can be written into a folder, which need not exist, as far as that is known before they are.

    Args:
        path: The folder.

    Raises:
        UserError: They cannot.
    """
    if path.exists() and not path.is_dir():
        raise UserError(Problem(f"{path} is no folder", _KEY, hint="name a folder"))
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not os.access(there, os.W_OK):
        raise UserError(Problem(f"{path} cannot be written", _KEY, hint="name a folder elsewhere"))


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make a `UserError` of what keeps the body from writing a file."""
    try:
        yield
    except OSError as error:
        what = f"{path} cannot be written: {error.strerror or error}"
        raise UserError(Problem(what, _KEY, hint="name a file elsewhere")) from None
