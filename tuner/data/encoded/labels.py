"""Labels that are written as texts, and what they are as numbers."""

import re
import unicodedata

import numpy as np

from tuner.data.encoded.listing import Array

_YES = {"1", "1.0", "true", "yes"}
_NO = {"0", "0.0", "false", "no"}


def of_classes(words: list[str]) -> tuple[tuple[str, ...], Array]:
    """The names of the classes, in order, and the index of each word's class, int64 (N,)."""
    words = [unicodedata.normalize("NFC", word) for word in words]
    classes = _sorted(set(words))
    index = {name: label for label, name in enumerate(classes)}
    return classes, np.array([index[word] for word in words], dtype=np.int64)


def separated(cells: list[str], separator: str) -> tuple[tuple[str, ...], Array]:
    """The names of the classes, in order, and 1 for each class that a cell names, else 0: float32 (N, classes)."""
    lists = [[word.strip() for word in cell.split(separator)] for cell in cells]
    return of_lists([[word for word in words if word] for words in lists])


def of_lists(lists: list[list[str]]) -> tuple[tuple[str, ...], Array]:
    """The names of the classes, in order, and 1 for each class in a list, else 0: float32 (N, classes)."""
    lists = [[unicodedata.normalize("NFC", word) for word in words] for words in lists]
    classes = _sorted({word for words in lists for word in words})
    index = {name: label for label, name in enumerate(classes)}
    labels = np.zeros((len(lists), len(classes)), dtype=np.float32)
    for row, words in enumerate(lists):
        labels[row, [index[word] for word in words]] = 1
    return classes, labels


def in_columns(cells: Array) -> tuple[Array, Array]:
    """Texts of 0 and 1 as float32, of the same shape, and which ones are something else."""
    yes, wrong = are_yes(cells)
    return yes.astype(np.float32), wrong


def are_yes(cells: Array) -> tuple[Array, Array]:
    """Which texts mean 1, and which mean neither 0 nor 1."""
    lower = np.char.lower(cells.astype(str))
    yes = np.isin(lower, list(_YES))
    return yes, ~yes & ~np.isin(lower, list(_NO))


def _sorted(names: set[str]) -> tuple[str, ...]:
    """Names in order: numbers by their value."""
    are_numbers = all(re.fullmatch(r"\d+", name) for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name) if are_numbers else (0, name)))
