"""Masks as lengths of runs of pixels, column by column, compressed to bytes as COCO does."""

from typing import Any

import numpy as np

Lengths = np.ndarray[Any, np.dtype[np.int64]]


def lengths_of(counts: bytes) -> Lengths:
    """The lengths of the runs without and with the object in turn, int64 (R,).

    A length is a number of digits of 5 bits, the lowest first; from the fourth on its difference to the last but one.
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - ord("0")
    ends = np.flatnonzero(digits & 32 == 0)
    if not len(ends):
        return np.zeros(0, np.int64)
    digits = digits[: ends[-1] + 1]
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    places = np.arange(len(digits)) - np.repeat(starts, sizes)
    lengths: Lengths = np.add.reduceat((digits & 31) << 5 * places, starts)
    lengths -= np.where(digits[ends] & 16, 1 << 5 * sizes, 0)
    lengths[1::2] = lengths[1::2].cumsum()
    lengths[2::2] = lengths[2::2].cumsum()
    return lengths


def pixels_of(lengths: Lengths) -> Lengths:
    """The indices of the pixels of the object, counted column by column, int64 (P,)."""
    ends = lengths.cumsum()[1::2]
    own = lengths[1::2]
    before = own.cumsum() - own
    pixels: Lengths = np.repeat(ends - own - before, own) + np.arange(own.sum())
    return pixels
