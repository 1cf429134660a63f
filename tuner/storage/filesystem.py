"""Access to the files of a job, in a folder or at any URI that pyarrow supports."""

import contextlib
import itertools
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from tuner.storage import temporary

_CHECKPOINT = "/checkpoint_"
"""The beginning of the names that Ray gives to checkpoints."""


def files_at(folder: str) -> tuple[Any, str]:
    """The pyarrow file system of a folder or URI, and the path on that file system."""
    from pyarrow.fs import FileSystem, LocalFileSystem

    if "://" in folder:
        files, path = FileSystem.from_uri(folder)
        return files, path
    return LocalFileSystem(), folder


def below(folder: str, *names: str) -> str:
    """Join names to a folder or URI; the options of a URI (``?endpoint_override=...``) stay at its end."""
    path, mark, options = _split(folder)
    return "/".join([path.rstrip("/"), *names]) + mark + options


def above(location: str) -> str:
    """The parent folder of a file or folder, or of a URI."""
    path, mark, options = _split(location)
    return path.rpartition("/")[0] + mark + options


def name_of(folder: str) -> str:
    """The last component of a folder's path or of a URI."""
    return _split(folder)[0].rstrip("/").rpartition("/")[2]


def with_scheme_of(storage: str, path: str) -> str:
    """The URI of a path on the file system of `storage`; the path itself if `storage` is a folder.

    Args:
        storage: The storage of the job: a folder or a URI.
        path: A path as Ray reports it, without scheme and options.
    """
    if "://" not in storage:
        return path
    uri, mark, options = _split(storage)
    return f"{uri[: uri.index('://')]}://{path}{mark}{options}"


_LAYOUT = re.compile(r"(?:^|/)(trial-\d+(?:-resumed-\d+)?/checkpoint_\d+|report|journal\.jsonl)$")
"""The paths in a job's folder: the checkpoints of its trials, its report and its journal."""


def relative(location: str, folder: str) -> str:
    """The path of a location relative to the job's folder, so that the folder can be moved.

    A location outside of the folder is returned unchanged.
    """
    path, prefix = _split(location)[0], _split(folder)[0].rstrip("/") + "/"
    return path.removeprefix(prefix) if path.startswith(prefix) else location


def resolved(location: str, folder: str) -> str:
    """The inverse of `relative`: the location in the present folder of the job.

    Older journals hold absolute paths in the folder that the job had then. They are recognised by their last
    components, which are the same in every job's folder.
    """
    if location.startswith("/") or "://" in location:
        known = _LAYOUT.search(_split(location)[0])
        return below(folder, known[1]) if known else location
    return below(folder, location)


def _split(location: str) -> tuple[str, str, str]:
    """The path, the ``?`` and the options of a URI; a plain path has no options."""
    return location.partition("?") if "://" in location else (location, "", "")


def part_of(file: str, number: int) -> str:
    """The path of one of the parts of a file. Object stores cannot append, so a growing file has several parts there.

    Args:
        file: Path or URI of the file, which is also that of its first part.
        number: Number of the part, from 1.
    """
    path, dot, suffix = file.rpartition(".")
    return file if number == 1 else f"{path}-{number}{dot}{suffix}"


def read_parts(file: str) -> Iterator[bytes]:
    """Read the parts of a file, in order.

    Raises:
        FileNotFoundError: The file does not exist.
    """
    files, path = files_at(file)
    for number in itertools.count(1):
        try:
            with files.open_input_stream(part_of(path, number)) as stream:
                yield stream.read()
        except FileNotFoundError:
            if number == 1:
                raise
            return


@contextlib.contextmanager
def as_file(source: str) -> Iterator[Path]:
    """Provide a stored file as a local file while the body runs, its parts joined."""
    if "://" not in source and not Path(part_of(source, 2)).is_file():
        yield Path(source)
        return
    with temporary.folder() as folder:
        file = folder / _split(source)[0].rpartition("/")[2]
        file.write_bytes(b"".join(read_parts(source)))
        yield file


@contextlib.contextmanager
def as_folder(source: str, files: Collection[str] = ()) -> Iterator[Path]:
    """Provide a stored checkpoint as a local folder while the body runs.

    Args:
        source: The folder, or its URI.
        files: Names of the files that are needed, where they have to be downloaded; empty for all. Of these, those
            that are missing are left out.

    Raises:
        FileNotFoundError: The checkpoint does not exist. MLflow would log an artifact without files, and no error.
    """
    with temporary.folder() as temporary_folder:
        folder = Path(source)
        if "://" in source:
            from pyarrow.fs import copy_files

            folder = Path(temporary_folder, "checkpoint")
            folder.mkdir()
            if not files:
                copy_files(source, f"file://{folder}")
            for name in files:
                with contextlib.suppress(FileNotFoundError):
                    (folder / name).write_bytes(_content(below(source, name)))
        if not folder.is_dir() or not any(folder.iterdir()):
            raise FileNotFoundError(f"the checkpoint {source} is gone")
        yield folder


def _content(location: str) -> bytes:
    files, path = files_at(location)
    with files.open_input_stream(path) as stream:
        content: bytes = stream.read()
        return content


def exists(location: str) -> bool:
    """Whether a file or folder exists; True if that cannot be determined."""
    from pyarrow.fs import FileType

    try:
        files, path = files_at(location)
        return bool(files.get_file_info(path).type != FileType.NotFound)
    except (OSError, ValueError):
        return True


def delete(folder: str) -> None:
    """Delete a folder. Errors are ignored: a folder that is left only takes space."""
    with contextlib.suppress(OSError):
        files, path = files_at(folder)
        files.delete_dir(path)


def checkpoints_in(folder: str) -> list[str]:
    """The checkpoints in a trial's or a job's folder; none if the folder cannot be read."""
    try:
        return list_checkpoints(folder)
    except OSError:
        return []


def list_checkpoints(folder: str) -> list[str]:
    """The checkpoints in a trial's or a job's folder.

    Raises:
        OSError: The folder cannot be read.
    """
    from pyarrow.fs import FileSelector, FileType

    files, path = files_at(folder)
    found = files.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
    folders = [info.path for info in found if info.type == FileType.Directory and _CHECKPOINT in info.path]
    # A checkpoint of a user's function may contain folders of the same name.
    outer = [each for each in folders if each[len(path) :].find(_CHECKPOINT) == each.rfind("/") - len(path)]
    return [with_scheme_of(folder, each) for each in outer]


def delete_checkpoints(folder: str) -> None:
    """Delete the checkpoints in a trial's folder."""
    for checkpoint in checkpoints_in(folder):
        delete(checkpoint)
