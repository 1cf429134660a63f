"""What a CSV file lists: images, their labels, and the sets and groups that they belong to."""

import csv
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import md5
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from tuner.data.encoded.labels import are_yes, in_columns, of_classes, separated
from tuner.data.encoded.listing import Array, Items, Listing, is_special, split_of, stamps
from tuner.data.encoded.splitting import why_not_complete
from tuner.error_text import escaped, one_line
from tuner.errors import Mistakes, Problem, allowed
from tuner.formatting import counted

if TYPE_CHECKING:
    from pandas import DataFrame

_SHOWN = 5
"""Most rows that a message names."""
_PATHS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img")
_LABELS = ("label", "labels", "class", "target", "category")
_DELIMITERS = ",;\t|"
_MORE_WORDS = {"dev": "validation", "development": "validation", "eval": "validation", "evaluation": "validation"}


@dataclass(frozen=True)
class Columns:
    """The names of the columns, as the fields of `CSVImages` say them."""

    paths: str | None
    labels: str | tuple[str, ...] | None
    separator: str | None
    split: str | None
    group: str | None
    validation: str | None = None
    test: str | None = None


@dataclass(frozen=True)
class CSVListing(Listing):
    """The images of a CSV file, named by their paths in it, in its order.

    Args:
        sizes: The size of each one's file in bytes.
    """

    sizes: dict[str, int]

    @cached_property
    def digest(self) -> str:
        found = md5(repr(self.classes).encode(errors="surrogateescape"))
        for split, items in sorted(self.splits.items()):
            found.update(f"{split} {len(items)}\n".encode())
            found.update(items.labels.tobytes())
            found.update(b"" if items.groups is None else items.groups.tobytes())
            for name in items.names:
                found.update(name.encode(errors="surrogateescape") + b"\0%d\n" % self.sizes[name])
        return found.hexdigest()


@lru_cache(maxsize=4)
def listing_of(
    file: Path, root: Path, suffix: str, columns: Columns, delimiter: str | None, encoding: str
) -> CSVListing:
    """List the images of a CSV file.

    Raises:
        Mistakes: It cannot be read, a column is missing, or a row says something that cannot be.
    """
    return _Reader(file, root, suffix, columns, delimiter, encoding).listing()


def columns_of(file: Path, delimiter: str | None = None, encoding: str = "utf-8") -> list[str]:
    """The names of the columns of a CSV file.

    Raises:
        Mistakes: It cannot be read.
    """
    columns = Columns(None, None, None, None, None)
    return list(_Reader(file, file.parent, "", columns, delimiter, encoding).parsed(rows=0).columns)


@dataclass
class _Reader:
    file: Path
    root: Path
    suffix: str
    columns: Columns
    delimiter: str | None
    encoding: str

    def listing(self) -> CSVListing:
        table = self.table = self._read()
        paths = self._column(self.columns.paths, "paths", _PATHS).tolist()
        self._refuse_rows([not path for path in paths], "no path", "paths")
        names = [os.path.normpath(path + self.suffix) for path in paths]
        classes, labels = self._labels()
        splits, groups = self._splits(), self._groups(names)
        first = self._first_rows(names, labels, splits, groups)
        sizes = self._sizes([names[row] for row in first], first)
        self._check_groups(splits, groups)
        ignored = []
        if len(first) < len(table):
            ignored.append(f"{counted(len(table) - len(first), 'row')} that repeat an image")
        found = {}
        for split in ("train", "validation", "test"):
            rows = first[splits[first] == split]
            if len(rows):
                of_group = None if groups is None else groups[rows]
                found[split] = Items([names[row] for row in rows], labels[rows], of_group)
        if "train" not in found:
            self._refuse("no row is of the training set", "split", "write train in the column for training images")
        if problem := why_not_complete(found, classes, "these rows"):
            self._refuse(problem.message, "labels", problem.hint)
        return CSVListing(classes, found, tuple(ignored), sizes)

    def parsed(self, rows: int | None = None) -> "DataFrame":
        """Return the first rows, all if it is None, as texts in columns by name."""
        import pandas as pd

        try:
            if is_special(self.file):
                self._refuse("is not a file", "file", "name a file, which is read more than once")
            with self.file.open(encoding=self.encoding, newline="") as lines:
                head = lines.readline().lstrip("\ufeff")
                delimiter = self.delimiter or max(_DELIMITERS, key=head.count)
                header = next(csv.reader(chain([head], lines), delimiter=delimiter), [])
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)  # cells would be lost
                table = pd.read_csv(
                    self.file,
                    nrows=rows,
                    sep=delimiter,
                    encoding=self.encoding,
                    dtype=str,
                    keep_default_na=False,
                    na_filter=False,
                    skip_blank_lines=False,
                    index_col=False,
                )
        except pd.errors.ParserWarning:
            hint = 'put a cell that contains it into "quotes", or write another delimiter'
            self._refuse(f"rows have more cells than the first line, between {delimiter!r}", "delimiter", hint)
        except OSError as error:
            hint = "a path is relative to the folder of the YAML file"
            self._refuse(f"cannot be read: {error.strerror or error}", "file", hint)
        except UnicodeError as error:
            hint = "write encoding: latin-1, cp1252, utf-16, or whatever it was saved in"
            self._refuse(f"is not {self.encoding}: {error}", "encoding", hint)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error, ValueError) as error:
            why = " ".join(str(error).split()).rpartition("C error: ")[2]
            hint = "its first line names the columns; a cell that contains the delimiter stands in quotes"
            self._refuse(f"cannot be read: {why}", "file", hint)
        if not header:
            self._refuse("has an empty first line", "file", "its first line names the columns")
        table.columns = [name.strip() for name in header]  # pandas renames those that are there twice
        return table

    def _read(self) -> "DataFrame":
        import pandas as pd

        table = self.parsed()
        table = table.apply(lambda column: column.str.strip())
        is_blank = (table == "").all(axis=1)
        # The line of each row: a quoted cell may hold several lines.
        extra = sum((column.str.count("\n") for _, column in table.items()), start=pd.Series(0, index=table.index))
        self.lines = (np.arange(len(table)) + 2 + np.concatenate([[0], np.cumsum(extra)[:-1]]))[~is_blank]
        if is_blank.all():
            self._refuse("has no rows", "file", "one row for each image")
        filled: DataFrame = table[~is_blank]
        return filled

    def _column(self, name: str | None, key: str, usual: Iterable[str] = ()) -> Array:
        """The cells of a column; that of the first usual name if it is None."""
        names = list(self.table.columns)
        if name is None:
            by_lower = {each.lower(): each for each in reversed(names)}
            name = next((by_lower[each] for each in usual if each in by_lower), None)
            if name is None:
                self._refuse(f"has no column named {', '.join(usual)}", key, f"its columns: {', '.join(names[:20])}")
        if names.count(name) != 1:
            message = f"has {'no' if name not in names else 'more than one'} column {name!r}"
            self._refuse(message, key, allowed(name, names))
        cells: Array = self.table[name].to_numpy(dtype=object)
        return cells

    def _labels(self) -> tuple[tuple[str, ...], Array]:
        """The names of the classes, and the labels of all rows."""
        if isinstance(self.columns.labels, tuple):
            cells = np.stack([self._column(name, "labels") for name in self.columns.labels], axis=1)
            labels, wrong = in_columns(cells)
            self._refuse_rows(wrong.any(axis=1), "another label than 0 or 1", "labels", cells[wrong])
            return self.columns.labels, labels
        cells = self._column(self.columns.labels, "labels", _LABELS)
        if self.columns.separator is not None:
            return separated(cells.tolist(), self.columns.separator)
        self._refuse_rows([not cell for cell in cells], "no label", "labels")
        return of_classes(cells.tolist())

    def _splits(self) -> Array:
        """The split of each row; all are of the training set if nothing else is said."""
        splits = np.full(len(self.table), "train", dtype=object)
        if self.columns.split is not None:
            words = self._column(self.columns.split, "split")
            known = {word: split_of(word) or _MORE_WORDS.get(word.lower()) for word in set(words)}
            wrong = np.array([known[word] is None for word in words])
            hint = "allowed: train, validation (val, valid, dev) and test"
            self._refuse_rows(wrong, "another split", "split", words[wrong], hint)
            splits = np.array([known[word] for word in words], dtype=object)
        for split, name in (("validation", self.columns.validation), ("test", self.columns.test)):
            if name is None:
                continue
            if split in splits:
                self._refuse(f"has two {split} sets, by the columns {self.columns.split} and {name}", split, "name one")
            yes, wrong = are_yes(self._column(name, split))
            self._refuse_rows(wrong, f"neither 0 nor 1 in {name}", split)
            self._refuse_rows(yes & np.not_equal(splits, "train"), "two sets", split)
            if not yes.any():
                self._refuse(f"has no 1 in the column {name}", split, f"write 1 for the images of the {split} set")
            splits[yes] = split
        return splits

    def _groups(self, names: list[str]) -> Array | None:
        if self.columns.group is None:
            return None
        cells = self._column(self.columns.group, "group")
        _, groups = np.unique(cells.astype(str), return_inverse=True)
        groups = groups.astype(np.int64)
        alone: dict[str, int] = {}  # rows that repeat an image are of one group
        for row in np.flatnonzero(cells == "").tolist():
            groups[row] = len(cells) + alone.setdefault(names[row], len(alone))
        return groups

    def _first_rows(self, names: list[str], labels: Array, splits: Array, groups: Array | None) -> Array:
        """The first row of each image. Rows that repeat one must say the same."""
        first: dict[str, int] = {}
        for row, name in enumerate(names):
            earlier = first.setdefault(name, row)
            if earlier == row:
                continue
            key = "split" if splits[row] != splits[earlier] else ""
            key = key or ("labels" if (labels[row] != labels[earlier]).any() else "")
            key = key or ("group" if groups is not None and groups[row] != groups[earlier] else "")
            if key:
                lines = f"lines {self.lines[earlier]} and {self.lines[row]}"
                what = {"split": "set", "labels": "label", "group": "group"}[key]
                hint = "write an image once; several classes stand in one row, with a separator"
                self._refuse(f"{lines} give {escaped(name)} more than one {what}", key, hint)
        return np.array(list(first.values()), dtype=np.int64)

    def _sizes(self, names: list[str], rows: Array) -> dict[str, int]:
        sizes, missing = {}, []
        paths = (os.path.join(self.root, name) for name in names)  # noqa: PTH118 - once for each image
        for name, row, stamp in zip(names, rows, stamps(paths), strict=True):
            if stamp:
                sizes[name] = stamp[0]
            else:
                missing.append(f"{one_line(name)} (line {self.lines[row]})")
        if missing:
            more = f", and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            message = f"{counted(len(missing), 'image')} of {len(names):,} cannot be found: "
            hint = f"paths are relative to {self.root}; root names another folder, and suffix a missing .jpg"
            self._refuse(message + ", ".join(missing[:_SHOWN]) + more, "paths", hint)
        return sizes

    def _check_groups(self, splits: Array, groups: Array | None) -> None:
        if groups is None:
            return
        of_group: dict[int, int] = {}
        for row, group in enumerate(groups.tolist()):
            earlier = of_group.setdefault(group, row)
            if splits[earlier] != splits[row]:
                name = self._column(self.columns.group, "group")[row]
                where = f"{splits[earlier]} (line {self.lines[earlier]}) and {splits[row]} (line {self.lines[row]})"
                self._refuse(f"the group {escaped(name)} is in {where}", "group", "a group is in one set")

    def _refuse_rows(self, wrong: ArrayLike, what: str, key: str, cells: Iterable[str] = (), hint: str = "") -> None:
        rows = np.flatnonzero(np.asarray(wrong))
        if not len(rows):
            return
        lines = ", ".join(str(self.lines[row]) for row in rows[:_SHOWN])
        more = f", and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
        values = ", ".join(repr(cell) for cell in list(dict.fromkeys(cells))[:_SHOWN])
        message = (
            f"{counted(len(rows), 'row has', 'rows have')} {what}{f': {values}' if values else ''} (line {lines}{more})"
        )
        self._refuse(message, key, hint or "complete them, or delete them")

    def _refuse(self, what: str, key: str, hint: str) -> NoReturn:
        raise Mistakes(Problem(f"{escaped(str(self.file))}: {what}", key, hint=hint))
