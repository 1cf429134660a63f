"""The checkpoints that a trial can resume from: the latest and, if that cannot be read, the earlier ones."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSelector, FileType

from tuner.errors import Damaged, Problem
from tuner.trials.layout import RESUMED


def latest_first(checkpoint: Any) -> Iterator[Any]:
    """Yield a checkpoint of Ray's, then the earlier checkpoints of its trial that exist, the latest first."""
    yield checkpoint
    files = checkpoint.filesystem
    folder, _, last = checkpoint.path.rpartition("/")
    job, _, name = folder.rpartition("/")
    trial, _, resumed = name.partition(RESUMED)
    for resumption in range(int(resumed or 0), -1, -1):
        parent = f"{job}/{trial}{RESUMED}{resumption}" if resumption else f"{job}/{trial}"
        found = files.get_file_info(FileSelector(parent, allow_not_found=True))
        names = sorted(info.base_name for info in found if info.type == FileType.Directory)
        for each in reversed(names):
            if each.startswith("checkpoint_") and (parent != folder or each < last):
                yield type(checkpoint)(f"{parent}/{each}", files)


@contextmanager
def folder_of(checkpoint: Any) -> Iterator[Path]:
    """Yield the folder of a checkpoint, downloaded if it is not on this node.

    Raises:
        Damaged: The checkpoint does not exist.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(checkpoint.as_directory())
        except FileNotFoundError as error:
            raise Damaged(Problem(f"is no checkpoint: {error}", where=checkpoint.path)) from None
        yield Path(folder)
