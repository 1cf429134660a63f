"""What each sample adds to the sums of a meter, so that they can be added up for a resample of the set."""

from collections.abc import Iterable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class Samples:
    """The cells of sums to which each sample adds, and what: a sample adds to few of them."""

    def __init__(self) -> None:
        self.count = 0
        """Number of samples."""
        self._rows: list[tuple[Array, Array, Array]] = []

    def add(self, rows: Iterable[tuple[Array, Array]]) -> None:
        """Add the samples of a batch.

        Args:
            rows: Of each sample the cells, int64 (K,), of the flattened sums, and what it adds to each, (K,).
        """
        for cells, values in rows:
            self._rows.append((np.full(len(cells), self.count), cells, np.asarray(values, dtype=np.float64)))
            self.count += 1

    def merge(self, other: "Samples") -> None:
        """Add the samples of another set behind these."""
        self._rows += [(samples + self.count, cells, values) for samples, cells, values in other._rows]
        self.count += other.count

    @property
    def columns(self) -> tuple[Array, Array, Array]:
        """The sample, the cell and the value of each row, ordered by sample."""
        if len(self._rows) != 1:
            empty = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))
            found = [np.concatenate(each) for each in zip(empty, *self._rows, strict=True)]
            self._rows = [(found[0], found[1], found[2])]
        return self._rows[0]

    def sums(self, counts: Array, size: int) -> Array:
        """The sums over the samples, each of which counts so many times.

        Args:
            counts: How often each sample counts, (samples,).
            size: Number of cells.

        Returns:
            float64 (size,).
        """
        samples, cells, values = self.columns
        found: Array = np.bincount(cells, values * counts[samples], minlength=size)
        return found
