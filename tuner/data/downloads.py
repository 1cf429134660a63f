"""Datasets that are downloaded: where they lie, which files are missing or damaged, and who downloads."""

import contextlib
import os
from abc import abstractmethod
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tuner.data.images import ImageData
from tuner.errors import Problem
from tuner.storage.file_lock import exclusive

_MIRROR_TIMEOUT = 10.0  # seconds until the first answer of a mirror


def data_dir() -> Path:
    """The folder of the datasets: TUNER_DATA_DIR if set, else ``~/.cache/tuner``."""
    return Path(os.environ.get("TUNER_DATA_DIR") or "~/.cache/tuner").expanduser()


class Downloaded(ImageData):
    """A dataset in files with known checksums."""

    @property
    @abstractmethod
    def checksums(self) -> dict[str, str]:
        """The names of the files and their MD5 checksums."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """The folder of the files, which torchvision uses, too."""

    @property
    def is_available(self) -> bool:
        return not self._missing()

    def _missing(self) -> list[str]:
        return [name for name in self.checksums if not (self.folder / name).is_file()]

    def _damaged(self) -> list[Problem]:
        found = (damage_of(self.folder / name, checksum) for name, checksum in self.checksums.items())
        return [problem for problem in found if problem is not None]


def damage_of(file: Path, checksum: str) -> Problem | None:
    """The problem that a file has another MD5 checksum; None if it has this one, or does not exist."""
    if not file.is_file():
        return None
    found = md5(file.read_bytes()).hexdigest()
    if found == checksum:
        return None
    message = f"is damaged: its MD5 checksum is {found}, expected {checksum}"
    return Problem(message, where=str(file), hint="delete it: it is downloaded again if there is a network")


@contextlib.contextmanager
def download_lock(folder: Path) -> Iterator[None]:
    """Let only one process of a node download at a time, so that trials that start together do not all download."""
    with exclusive(folder, where_possible=True):  # without a lock each process downloads, which is correct but slow
        yield


def first_that_answers(urls: list[str]) -> str:
    """The first URL that answers within the timeout; torchvision itself would wait forever.

    Raises:
        OSError: No URL answers.
    """
    failure: Exception = OSError("no mirror")
    for url in urls:
        try:
            with urlopen(url, timeout=_MIRROR_TIMEOUT):
                return url
        except (URLError, OSError) as error:
            failure = error
    raise failure


def reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)  # a URLError wraps the error that caused it
    return str(reason if isinstance(reason, Exception) else error)
