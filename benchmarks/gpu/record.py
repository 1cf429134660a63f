"""What a record says of trials that train at the same time, and how fast they are together."""

import contextlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path


@dataclass(frozen=True)
class Epoch:
    """An epoch of a trial.

    Args:
        trial: The trial's run, or another name of its own.
        number: Number of the epoch, from 1.
        began: When it began, in seconds since 1970.
        ended: When it was reported: after its validation.
        speed: Its training images per second, as recorded.
    """

    trial: str
    number: int
    began: float
    ended: float
    speed: float


def epochs_of(store: Path) -> list[Epoch]:
    """The epochs of all trials in an MLflow store, by trial and number."""
    query = """
        SELECT speed.run_uuid, speed.step, speed.timestamp / 1000.0, took.value, speed.value
        FROM metrics AS speed JOIN metrics AS took ON took.run_uuid = speed.run_uuid AND took.step = speed.step
        JOIN tags ON tags.run_uuid = speed.run_uuid AND tags.key = 'tuner.trial'
        WHERE speed.key = 'images_per_second' AND took.key = 'epoch_seconds' ORDER BY 1, 2
    """
    with contextlib.closing(sqlite3.connect(store)) as connection:
        rows = connection.execute(query).fetchall()
    return [Epoch(trial, number, when - took, when, speed) for trial, number, when, took, speed in rows]


def tags_of(store: Path, name: str) -> list[str]:
    """The values of a tag of all runs in an MLflow store."""
    with contextlib.closing(sqlite3.connect(store)) as connection:
        return [value for (value,) in connection.execute("SELECT value FROM tags WHERE key = ?", (name,))]


@dataclass(frozen=True)
class Together:
    """How fast trials are while all of them train.

    Args:
        recorded: The sum of their recorded `images_per_second`, in each slice of that time.
        trained: The images that they trained on in a second of it, while they also validated and saved.
        seconds: How long that was.
    """

    recorded: list[float]
    trained: list[float]
    seconds: float


def together(epochs: Sequence[Epoch], trials: int, images: int, slices: int = 4) -> Together:
    """Measure the time from when the last trial began its second epoch until the first one ended its last.

    A sum in a slice is the mean over time: a trial counts with the speed of the epoch in which it is at the moment, and
    with none while it is between two. The first epoch does not count: steps are recorded in it.

    Args:
        epochs: Of all trials.
        trials: The number of trials that there have to be.
        images: Training images of an epoch.
        slices: The number of parts of equal length of that time.

    Raises:
        RuntimeError: Trials are missing, or did not train at the same time.
    """
    by_trial: dict[str, list[Epoch]] = {}
    for epoch in sorted(epochs, key=lambda each: each.number):
        by_trial.setdefault(epoch.trial, []).append(epoch)
    if len(by_trial) != trials or any(len(each) < 2 for each in by_trial.values()):
        raise RuntimeError(f"{len(by_trial)} of {trials} trials are in the record, or some with one epoch only")
    begins = max(each[1].began for each in by_trial.values())
    ends = min(each[-1].ended for each in by_trial.values())
    if ends <= begins:
        raise RuntimeError(
            f"the {trials} trials did not all train at the same time: {begins - ends:.1f} s were between"
        )
    length = (ends - begins) / slices
    recorded, trained = [], []
    for number in range(slices):
        first, last = begins + number * length, begins + (number + 1) * length
        pairs = [pair for each in by_trial.values() for pair in pairwise(each)]
        recorded.append(sum(new.speed * _shared(new.began, new.ended, first, last) for _, new in pairs) / length)
        counts = [_shared(old.ended, new.ended, first, last) / (new.ended - old.ended) for old, new in pairs]
        trained.append(images * sum(counts) / length)
    return Together(recorded, trained, ends - begins)


def _shared(began: float, ended: float, first: float, last: float) -> float:
    """Seconds that two times have in common."""
    return max(0.0, min(ended, last) - max(began, first))
