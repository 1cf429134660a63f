"""What an encoded dataset holds: its splits, its classes and its images, known without decoding one."""

import os
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import Any, Self

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""The names of the splits, in any case."""
_STAMPING = 16
"""Threads that ask for the sizes and times of files."""


@dataclass(frozen=True)
class Items:
    """Encoded images and their labels.

    Args:
        names: What identifies each one in its dataset and in messages, such as a path relative to a folder.
        labels: The index of each one's class, int64 (N,); or 1 for each class it has, else 0, float32 (N, classes).
        groups: The number of each one's group, int64 (N,); None if there are no groups.
    """

    names: list[str]
    labels: Array
    groups: Array | None = None

    def __len__(self) -> int:
        return len(self.names)

    def chosen(self, index: Array) -> "Items":
        """The items at these indices, in this order."""
        groups = None if self.groups is None else self.groups[index]
        return replace(self, names=[self.names[each] for each in index], labels=self.labels[index], groups=groups)

    def first(self, count: int | None) -> "Items":
        """The first `count` items; all if it is None."""
        if count is None or count >= len(self):
            return self
        groups = None if self.groups is None else self.groups[:count]
        return Items(self.names[:count], self.labels[:count], groups)

    def followed_by(self, other: "Items") -> "Items":
        """These items, and others after them, without their groups."""
        return Items(self.names + other.names, np.concatenate([self.labels, other.labels]))

    def counts(self, classes: int) -> Array:
        """How many items have each class, int64 (classes,)."""
        if self.labels.ndim == 2:
            return self.labels.sum(axis=0).astype(np.int64)  # type: ignore[no-any-return]
        counts: Array = np.bincount(self.labels, minlength=classes)
        return counts


@dataclass(frozen=True)
class Listing:
    """What an encoded dataset holds.

    Args:
        classes: The names of the classes, by index.
        splits: The items by split: ``train``, and ``validation`` and ``test`` if the data have these sets.
        ignored: What was ignored, in phrases for the user.
    """

    classes: tuple[str, ...]
    splits: dict[str, Items]
    ignored: tuple[str, ...]

    @property
    def multilabel(self) -> bool:
        """Whether an image may have any number of the classes."""
        return self.splits["train"].labels.ndim == 2

    @property
    def digest(self) -> str:
        """A digest of all items, the same for a copy of the dataset."""
        raise NotImplementedError

    def without(self, names: Collection[str], phrase: str) -> Self:
        """A copy without some items.

        Args:
            names: Their names.
            phrase: What they are, for the user, beside what else was ignored.
        """
        splits = {
            split: items.chosen(np.flatnonzero([name not in names for name in items.names]))
            for split, items in self.splits.items()
        }
        return replace(self, splits=splits, ignored=(*self.ignored, phrase))


def stamps(paths: Iterable[str]) -> Iterator[tuple[int, int] | None]:
    """The size of each file in bytes, and the time of its last change in nanoseconds; None if there is no such file."""
    each = iter(paths)
    with ThreadPoolExecutor(_STAMPING) as pool:  # a file system on a network takes a millisecond for each file
        for found in pool.map(_stamps, iter(lambda: list(islice(each, 1000)), [])):
            yield from found


def _stamps(paths: list[str]) -> list[tuple[int, int] | None]:
    def stamp(path: str) -> tuple[int, int] | None:
        try:
            status = os.stat(path)  # noqa: PTH116 - once for each image
        except (OSError, ValueError):  # ValueError: a null character
            return None
        return (status.st_size, status.st_mtime_ns) if S_ISREG(status.st_mode) else None

    return [stamp(path) for path in paths]


def is_special(path: Path) -> bool:
    """Whether a path is a pipe, a socket or a device: opening it might wait forever.

    Raises:
        OSError: It cannot be looked at.
    """
    return path.exists() and not path.is_file() and not path.is_dir()


def split_of(word: str) -> str | None:
    """The split that a word or the name of a folder means: ``train``, ``validation`` or ``test``; None for no split."""
    return next((split for split, words in _SPLITS.items() if word.lower() in words), None)
