"""The checkpoints that a trial can go on from: the latest, and where that cannot be read, those before it."""

import re
from collections.abc import Iterator
from typing import Any

from pyarrow.fs import FileSelector, FileType

_BEGUN_AGAIN = "-resumed-"
_CHECKPOINT = re.compile(rf"/trial-(\d+)(?:{_BEGUN_AGAIN}\d+)?/checkpoint_\d+$")


def folder_name(number: int, resumed: int) -> str:
    """The folder of a trial among those of its job: a new one for each time that it was begun again."""
    return f"trial-{number:04d}" + (f"{_BEGUN_AGAIN}{resumed}" if resumed else "")


def trial_of(checkpoint: str) -> int | None:
    """The number of the trial in whose folder a checkpoint lies, as Ray names it; None where it is none of ours."""
    found = _CHECKPOINT.search(checkpoint.partition("?")[0])
    return int(found[1]) if found else None


def first_folder(path: str) -> str:
    """Of the folders that `folder_name` gives a trial, the first one: what is one for all of them lies there."""
    job, _, name = path.rpartition("/")
    return f"{job}/{name.partition(_BEGUN_AGAIN)[0]}"


def number_of(name: str) -> int:
    """The number of the trial of a folder's name."""
    return int(name.partition(_BEGUN_AGAIN)[0].removeprefix("trial-"))


def latest_first(checkpoint: Any) -> Iterator[Any]:
    """A checkpoint of Ray's, and then those that its trial has left before it, as far as they are there."""
    yield checkpoint
    files = checkpoint.filesystem
    folder, _, last = checkpoint.path.rpartition("/")
    job, _, name = folder.rpartition("/")
    trial, _, resumed = name.partition(_BEGUN_AGAIN)
    for again in range(int(resumed or 0), -1, -1):
        place = f"{job}/{trial}{_BEGUN_AGAIN}{again}" if again else f"{job}/{trial}"
        found = files.get_file_info(FileSelector(place, allow_not_found=True))
        names = sorted(info.base_name for info in found if info.type == FileType.Directory)
        for each in reversed(names):
            if each.startswith("checkpoint_") and (place != folder or each < last):
                yield type(checkpoint)(f"{place}/{each}", files)
