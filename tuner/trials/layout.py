"""The names of the folders of a job and of its trials."""

import re
from typing import TYPE_CHECKING

from tuner.storage.filesystem import below

if TYPE_CHECKING:  # workers import this, and need no specification
    from tuner.spec.experiment import ExperimentSpec

RESUMED = "-resumed-"
"""The part of a folder's name before the number of times that its trial was resumed."""

TEACHER = "teacher"
"""The name of the folder with the checkpoint of a job's teacher."""

_CHECKPOINT = re.compile(rf"/trial-(\d+)(?:{RESUMED}\d+)?/checkpoint_\d+$")


def folder_name(number: int, resumed: int) -> str:
    """Return the name of a trial's folder.

    Args:
        number: The trial's number.
        resumed: How often later invocations of the job resumed the trial: each has a new folder.
    """
    return f"trial-{number:04d}" + (f"{RESUMED}{resumed}" if resumed else "")


def trial_of(checkpoint: str) -> int | None:
    """Return the number of the trial in whose folder a checkpoint of Ray lies; None if it is another folder."""
    found = _CHECKPOINT.search(checkpoint.partition("?")[0])
    return int(found[1]) if found else None


def first_folder(path: str) -> str:
    """Return the first of the folders that `folder_name` gives a trial, which has files of all its invocations."""
    job, _, name = path.rpartition("/")
    return f"{job}/{name.partition(RESUMED)[0]}"


def number_of(name: str) -> int:
    """Return the trial's number from a folder's name."""
    return int(name.partition(RESUMED)[0].removeprefix("trial-"))


def job_folder(spec: "ExperimentSpec", job: str) -> str:
    """Return ``<storage>/<name>/<job>``."""
    return below(spec.storage, spec.name, job)
