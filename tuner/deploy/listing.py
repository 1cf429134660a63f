"""The files that a user's arguments lead to. They are found as they are needed: there may be millions."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tuner.data.decoding import is_image
from tuner.data.encoded.folders.listing import is_circle, kind_of
from tuner.deploy.video import INSTALL, is_installed, is_video
from tuner.error_text import escaped
from tuner.errors import Problem, UserError

STDIN = "-"
"""The argument that stands for a list of paths on standard input."""
NO_FILE = "there is no such file"
"""The fault of a path that leads nowhere."""
_KEY = "IMAGES"
_ALLOWED = "give files, folders, globs such as 'photos/**/*.jpg', videos, or - for a list on standard input"
_IN_FOLDERS = (
    "in a folder and all folders below it, files with the suffix of an image are read, such as .jpg and .png; name a "
    "file itself to have it read whatever its suffix"
)


@dataclass(frozen=True)
class Item:
    """An image that is asked about, or a video.

    Args:
        path: Where it is, as the user wrote it; empty if it is no file.
        content: The path of a file, the bytes of one, or an image in memory.
        fault: Why it cannot be read, if that is known already.
        frame: The number of the frame that it is of a video, from 0; None if it is an image, or the whole video.
        time: When that is shown, in seconds from the start of the video; None if unknown.
    """

    path: str
    content: Any
    fault: str = ""
    frame: int | None = None
    time: float | None = None

    @property
    def is_video(self) -> bool:
        """Whether it is the file of a video, whose frames are to be read."""
        return isinstance(self.content, str) and not self.fault and is_video(self.content)


def listed(arguments: Sequence[str], without: Path | None = None) -> Iterator[Item]:
    """Find the images of arguments: in their order, those of a folder by name.

    Args:
        arguments: Paths of files and of folders, whose images may lie at any depth; globs; or `STDIN`.
        without: A folder that is left out where it lies in one of these, as the one that pictures are written to.

    Raises:
        UserError: An argument leads to no image. It is raised before any image is returned.
    """
    problems: list[Problem] = []
    found: list[Iterable[Item]] = []
    for argument in arguments:
        if is_video(argument) and not is_installed():
            message = f"PyAV is not installed, which reads the frames of {escaped(argument)}"
            problems.append(Problem(message, _KEY, hint=INSTALL))
            continue
        items = _of(argument, _absolute(without))
        first = next(items, None)
        if first is None:
            problems.append(_why_none(argument))
        else:
            found.append(chain([first], items))
    if problems:
        raise UserError(*problems)
    return chain.from_iterable(found)


def count(arguments: Sequence[str], without: Path | None = None) -> int | None:
    """How many images arguments lead to; None if only reading standard input, or videos, would tell."""
    return (
        None if has_videos(arguments) else sum(1 for argument in arguments for _ in _of(argument, _absolute(without)))
    )


def has_videos(arguments: Sequence[str]) -> bool:
    """Whether arguments may lead to videos: of folders only images are read, and of standard input nobody knows."""
    return any(
        argument == STDIN or is_video(argument) or any(map(is_video, glob.iglob(argument, recursive=True)))  # noqa: PTH207
        for argument in arguments
    )


def _absolute(path: Path | None) -> str:
    return "" if path is None else str(path.absolute())


def _of(argument: str, without: str) -> Iterator[Item]:
    """The images of an argument."""
    if argument == STDIN:
        for line in sys.stdin.buffer if sys.stdin else ():  # it may be closed
            if path := os.fsdecode(line.rstrip(b"\r\n")):
                yield from _at(path, without) if os.path.lexists(path) else [Item(path, path, NO_FILE)]
    elif os.path.lexists(argument):
        yield from _at(argument, without)
    else:  # sorted, so that the images have the same order everywhere; names alone take little memory
        for path in sorted(glob.glob(argument, recursive=True)):  # noqa: PTH207 - absolute ones, too
            yield from _at(path, without)


def _at(path: str, without: str) -> Iterator[Item]:
    """The images at a path that exists."""
    at = Path(path)
    if at.is_dir():
        yield from _in(path, without)
    else:
        yield Item(path, path, _fault(at))


def _fault(path: Path) -> str:
    """Why what exists at a path, and is no folder, cannot be read; empty if that is not known yet."""
    if not path.is_file():
        return "it is not a file"
    return f"PyAV is not installed, which reads videos: {INSTALL}" if is_video(path.name) and not is_installed() else ""


def _in(folder: str, without: str) -> Iterator[Item]:
    """The images in a folder, by name; names with a dot first are hidden."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        yield Item(folder, folder, f"the folder cannot be read: {error.strerror}")
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        is_folder = kind_of(entry)
        if is_folder:
            is_left_out = bool(without) and _absolute(Path(entry.path)) == without
            if not is_left_out and not is_circle(entry, Path(folder)):
                yield from _in(entry.path, without)
        elif is_folder is False and is_image(entry.name):
            yield Item(entry.path, entry.path)


def _why_none(argument: str) -> Problem:
    """Why an argument leads to no image."""
    shown = escaped(argument)
    if argument == STDIN:
        return Problem("standard input has no paths", _KEY, hint="write one path a line")
    if "://" in argument:
        return Problem(f"{shown} is a URI, and images are files of this machine", _KEY, hint=_ALLOWED)
    if Path(argument).is_dir():
        return Problem(f"there are no images in the folder {shown}", _KEY, hint=_IN_FOLDERS)
    if glob.has_magic(argument):
        return Problem(f"no file matches {shown}", _KEY, hint="** stands for folders at any depth: 'photos/**/*.jpg'")
    return Problem(f"there is no file or folder {shown}", _KEY, hint=_ALLOWED)
