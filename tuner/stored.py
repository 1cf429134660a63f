"""Files of a job wherever they are stored: a folder, or anything that pyarrow knows."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def files_at(folder: str) -> tuple[Any, str]:
    """The file system that a folder or URI is on, and the path there."""
    from pyarrow.fs import FileSystem, LocalFileSystem

    if "://" in folder:
        files, path = FileSystem.from_uri(folder)
        return files, path
    return LocalFileSystem(), folder


@contextlib.contextmanager
def as_file(source: str) -> Iterator[Path]:
    """A stored file as a local one."""
    if "://" not in source:
        yield Path(source)
        return
    from pyarrow.fs import copy_files

    with tempfile.TemporaryDirectory(prefix="tuner-") as there:
        file = Path(there, source.rpartition("/")[2])
        copy_files(source, f"file://{file}")
        yield file


@contextlib.contextmanager
def as_folder(source: str) -> Iterator[Path]:
    """A stored checkpoint as a local folder.

    Raises:
        FileNotFoundError: It is not there. MLflow itself would upload nothing, and say nothing.
    """
    with tempfile.TemporaryDirectory(prefix="tuner-") as there:
        folder = Path(source)
        if "://" in source:
            from pyarrow.fs import copy_files

            folder = Path(there, "checkpoint")
            folder.mkdir()
            copy_files(source, f"file://{folder}")
        if not folder.is_dir() or not any(folder.iterdir()):
            raise FileNotFoundError(f"the checkpoint {source} is gone")
        yield folder


def delete(folder: str) -> None:
    """Delete a folder. That it cannot be, or is gone already, is not said: it takes room, no more."""
    with contextlib.suppress(OSError):
        files, path = files_at(folder)
        files.delete_dir(path)


def delete_checkpoints(folder: str) -> None:
    """Delete the checkpoints in a trial's folder."""
    from pyarrow.fs import FileSelector

    files, path = files_at(folder)
    for found in files.get_file_info(FileSelector(path, allow_not_found=True)):
        if found.base_name.startswith("checkpoint_"):
            with contextlib.suppress(FileNotFoundError):  # somebody else is at it
                files.delete_dir(found.path)
