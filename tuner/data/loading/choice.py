"""The choice of where the images of a dataset lie: by their size, and by what is free."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

from tuner.data.loading.disk_cache import is_begun
from tuner.data.loading.source import LoaderResources
from tuner.formatting import byte_size, counted

Cache = Literal["auto", "memory", "disk", "none"]
Place = Literal["memory", "disk", "none"]

_SHARE = 0.5
"""Share of the free memory, and of the free disk, that images may take: the rest is for the models and others."""
_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Where versions 2 and 1 of control groups say a container's limit of memory, what it uses, and in ``memory.stat`` how
much of that are pages of files that the system takes back when it needs them."""


@dataclass(frozen=True)
class Choice:
    """Where the images lie, and why, in words for the user."""

    place: Place
    why: str

    def explain(self, processes: int) -> str:
        """A phrase for the user, who may let a trial decode with so many processes."""
        decoding = f"by up to {counted(processes, 'process', 'processes')} of each trial"
        if processes == 0:
            decoding = "by each trial between its steps; resources.cpu: 4 gives it 3 processes for that"
        texts = {
            "memory": "images decoded once into memory",
            "disk": "images decoded once into a file that all trials share",
            "none": f"images decoded in each epoch {decoding}",
        }
        return f"{self.place} ({self.why}): {texts[self.place]}"


def choose(
    needed: int, everything: int, file: Callable[[], Path], device: torch.device, resources: LoaderResources
) -> Choice:
    """Choose where images lie, for ``cache: auto``.

    Args:
        needed: Bytes of the training and the validation images.
        everything: Bytes of all images.
        file: Returns the file of the decoded images, which may exist, or which another trial may be writing.
        device: The device of the training.
        resources: What the trial may take.
    """
    trials = resources.trials_per_host
    host = free_memory() * _SHARE / trials
    size = f"{byte_size(needed)} a trial"
    sharing = f" for {counted(trials, 'trial')} at once" if trials > 1 else ""
    why = ""
    if needed > host:
        why = f"{size} exceed half of the free memory{sharing}, {byte_size(host)} each"
    elif device.type == "cuda":
        gpu = torch.cuda.mem_get_info(device)[0] * _SHARE / resources.trials_per_gpu
        if needed > gpu:
            why = f"{size} exceed half of the GPU's free memory, {byte_size(gpu)} for each trial"
    if not why:
        return Choice("memory", f"{size} fit into {byte_size(host)}{sharing}")
    path = file()
    disk = _free_disk(path) * _SHARE  # measured first: another trial may reserve its file's place meanwhile
    if everything <= disk or is_begun(path):
        return Choice("disk", why)
    return Choice("none", f"{why}, and {byte_size(everything)} half of the free disk, {byte_size(disk)}")


def free_memory() -> float:
    """Bytes of memory that this machine, or its container, has free."""
    free = psutil.virtual_memory().available
    for folder, limit, used, pages in _GROUPS:
        try:
            most, taken = (int(Path(folder, name).read_text()) for name in (limit, used))
            counts = dict(line.split(" ", 1) for line in Path(folder, "memory.stat").read_text().splitlines())
            free = min(free, most - taken + int(counts.get(pages, 0)))
        except (OSError, ValueError):  # not in a container, or "max"
            continue
    return max(0, free)


def _free_disk(file: Path) -> float:
    """Bytes that can be written beside a file; 0 if none can."""
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    return shutil.disk_usage(folder).free if os.access(folder, os.W_OK) else 0
