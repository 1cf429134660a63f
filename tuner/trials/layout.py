"""How the folders of a job are named: which trial lies in which."""

import re
from typing import TYPE_CHECKING

from tuner.storage.filesystem import below

if TYPE_CHECKING:  # workers import this, and need no specification
    from tuner.spec.experiment import ExperimentSpec

RESUMED = "-resumed-"
"""Stands between a folder's name and how often its trial was resumed."""

_CHECKPOINT = re.compile(rf"/trial-(\d+)(?:{RESUMED}\d+)?/checkpoint_\d+$")


def folder_name(number: int, resumed: int) -> str:
    """The folder of a trial among those of its job: a new one for each time that it was begun again."""
    return f"trial-{number:04d}" + (f"{RESUMED}{resumed}" if resumed else "")


def trial_of(checkpoint: str) -> int | None:
    """The number of the trial in whose folder a checkpoint lies, as Ray names it; None where it is none of ours."""
    found = _CHECKPOINT.search(checkpoint.partition("?")[0])
    return int(found[1]) if found else None


def first_folder(path: str) -> str:
    """Of the folders that `folder_name` gives a trial, the first one: what is one for all of them lies there."""
    job, _, name = path.rpartition("/")
    return f"{job}/{name.partition(RESUMED)[0]}"


def number_of(name: str) -> int:
    """The number of the trial of a folder's name."""
    return int(name.partition(RESUMED)[0].removeprefix("trial-"))


def job_folder(spec: "ExperimentSpec", job: str) -> str:
    """``<storage>/<name>/<job>``."""
    return below(spec.storage, spec.name, job)
