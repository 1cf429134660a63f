"""The checkpoints that a trial can go on from: the latest, and where that cannot be read, those before it."""

from collections.abc import Iterator
from typing import Any

from pyarrow.fs import FileSelector, FileType

from tuner.trials.layout import RESUMED


def latest_first(checkpoint: Any) -> Iterator[Any]:
    """A checkpoint of Ray's, and then those that its trial has left before it, as far as they are there."""
    yield checkpoint
    files = checkpoint.filesystem
    folder, _, last = checkpoint.path.rpartition("/")
    job, _, name = folder.rpartition("/")
    trial, _, resumed = name.partition(RESUMED)
    for again in range(int(resumed or 0), -1, -1):
        place = f"{job}/{trial}{RESUMED}{again}" if again else f"{job}/{trial}"
        found = files.get_file_info(FileSelector(place, allow_not_found=True))
        names = sorted(info.base_name for info in found if info.type == FileType.Directory)
        for each in reversed(names):
            if each.startswith("checkpoint_") and (place != folder or each < last):
                yield type(checkpoint)(f"{place}/{each}", files)
