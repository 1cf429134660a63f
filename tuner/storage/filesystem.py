"""Files of a job wherever they are stored: a folder, or anything that pyarrow knows."""

import contextlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuner.storage import temporary

_CHECKPOINT = "/checkpoint_"
"""What the names of checkpoints begin with, as Ray has them."""


def files_at(folder: str) -> tuple[Any, str]:
    """The file system that a folder or URI is on, and the path there."""
    from pyarrow.fs import FileSystem, LocalFileSystem

    if "://" in folder:
        files, path = FileSystem.from_uri(folder)
        return files, path
    return LocalFileSystem(), folder


def below(folder: str, *names: str) -> str:
    """What lies below a folder; the options of a URI (``?endpoint_override=...``) stay behind its path."""
    path, mark, options = _split(folder)
    return "/".join([path.rstrip("/"), *names]) + mark + options


def above(place: str) -> str:
    """The folder that a file or folder lies in."""
    path, mark, options = _split(place)
    return path.rpartition("/")[0] + mark + options


def name_of(folder: str) -> str:
    """The name of a folder, or of the one at a URI."""
    return _split(folder)[0].rstrip("/").rpartition("/")[2]


def on(storage: str, path: str) -> str:
    """A path on the file system of a storage, as Ray has them, as one that anybody finds: a URI where that is one."""
    if "://" not in storage:
        return path
    place, mark, options = _split(storage)
    return f"{place[: place.index('://')]}://{path}{mark}{options}"


_LAYOUT = re.compile(r"(?:^|/)(trial-\d+(?:-resumed-\d+)?/checkpoint_\d+|report|journal\.jsonl)$")
"""What a job's folder holds: the checkpoints of its trials, its report and its journal."""


def relative(place: str, folder: str) -> str:
    """A place in a job's folder, relative to that: it stays right when the folder is moved. Others stay as they are."""
    path, above = _split(place)[0], _split(folder)[0].rstrip("/") + "/"
    return path.removeprefix(above) if path.startswith(above) else place


def resolved(place: str, folder: str) -> str:
    """What `relative` made of a place in a job's folder, where that folder is now.

    Older journals have whole paths, of where the folder was then: in any folder of a job the same names mean the same.
    """
    if place.startswith("/") or "://" in place:
        name = _LAYOUT.search(_split(place)[0])
        return below(folder, name[1]) if name else place
    return below(folder, place)


def _split(place: str) -> tuple[str, str, str]:
    return place.partition("?") if "://" in place else (place, "", "")


def part_of(file: str, number: int) -> str:
    """The path of a file's part, counted from 1: object stores cannot append, so what grows there is in several."""
    path, dot, ending = file.rpartition(".")
    return file if number == 1 else f"{path}-{number}{dot}{ending}"


def read_parts(file: str) -> Iterator[bytes]:
    """The parts of a file that is there, in their order."""
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
    """A stored file as a local one, its parts put together."""
    if "://" not in source and not Path(part_of(source, 2)).is_file():
        yield Path(source)
        return
    with temporary.folder() as there:
        file = there / _split(source)[0].rpartition("/")[2]
        file.write_bytes(b"".join(read_parts(source)))
        yield file


@contextlib.contextmanager
def as_folder(source: str) -> Iterator[Path]:
    """A stored checkpoint as a local folder.

    Raises:
        FileNotFoundError: It is not there. MLflow itself would upload nothing, and say nothing.
    """
    with temporary.folder() as there:
        folder = Path(source)
        if "://" in source:
            from pyarrow.fs import copy_files

            folder = Path(there, "checkpoint")
            folder.mkdir()
            copy_files(source, f"file://{folder}")
        if not folder.is_dir() or not any(folder.iterdir()):
            raise FileNotFoundError(f"the checkpoint {source} is gone")
        yield folder


def is_there(place: str) -> bool:
    """Whether a file or folder is there; one that cannot be looked at is taken for it."""
    from pyarrow.fs import FileType

    try:
        files, path = files_at(place)
        return bool(files.get_file_info(path).type != FileType.NotFound)
    except (OSError, ValueError):
        return True


def delete(folder: str) -> None:
    """Delete a folder. That it cannot be, or is gone already, is not said: it takes room, no more."""
    with contextlib.suppress(OSError):
        files, path = files_at(folder)
        files.delete_dir(path)


def checkpoints_in(folder: str) -> list[str]:
    """The checkpoints in a folder, a trial's or a job's. Where it cannot be looked at, there are none."""
    try:
        return list_checkpoints(folder)
    except OSError:
        return []


def list_checkpoints(folder: str) -> list[str]:
    """The checkpoints in a folder, a trial's or a job's.

    Raises:
        OSError: It cannot be looked at.
    """
    from pyarrow.fs import FileSelector, FileType

    files, path = files_at(folder)
    found = files.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
    folders = [info.path for info in found if info.type == FileType.Directory and _CHECKPOINT in info.path]
    # What a function of the user's own has in its checkpoints is its own business.
    outer = [place for place in folders if place[len(path) :].find(_CHECKPOINT) == place.rfind("/") - len(path)]
    return [on(folder, place) for place in outer]


def delete_checkpoints(folder: str) -> None:
    """Delete the checkpoints in a trial's folder."""
    for checkpoint in checkpoints_in(folder):
        delete(checkpoint)
