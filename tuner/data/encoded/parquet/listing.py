"""What Parquet files hold: images and their labels, read without the images."""

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property, lru_cache
from glob import glob, has_magic
from hashlib import md5
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from tuner.data.encoded.labels import of_classes, of_lists
from tuner.data.encoded.listing import Items, Listing, is_special, split_of
from tuner.data.encoded.parquet.rows import Shard
from tuner.data.encoded.splitting import why_not_complete
from tuner.error_text import escaped
from tuner.errors import Mistakes, Problem
from tuner.formatting import counted

_IMAGES = ("image", "img")
_LABELS = ("label", "labels", "fine_label", "class", "target", "category")
_MOST_BYTES = 2**31
"""Larger groups of rows are refused: one is read at a time."""


@dataclass(frozen=True)
class ParquetListing(Listing):
    """The images of Parquet files, named by their file and their row in it, such as ``train-0.parquet:0017``.

    Args:
        column: The column of the images.
        shards: The files by name.
    """

    column: str
    shards: dict[str, Shard]

    @cached_property
    def digest(self) -> str:
        found = md5(repr((self.classes, self.column)).encode(errors="surrogateescape"))
        for name, shard in self.shards.items():
            size = shard.path.stat().st_size if shard.path.exists() else -1
            found.update(f"{name} {shard.starts[-1]} {size}\n".encode(errors="surrogateescape"))
        for split, items in sorted(self.splits.items()):
            found.update(f"{split} {len(items)}\n".encode() + items.labels.tobytes())
        return found.hexdigest()


@lru_cache(maxsize=4)
def listing_of(
    file: str, images: str | None, labels: str | None, validation: str | None = None, test: str | None = None
) -> ParquetListing:
    """List the images of Parquet files.

    Raises:
        Mistakes: A file cannot be read, has no such columns, or a label is none.
    """
    return _Reader(file, images, labels, {"validation": validation, "test": test}).listing()


class _Meaning(NamedTuple):
    """How a file is to be read: its columns, what its labels are, and the names that numbers stand for."""

    images: str
    labels: str
    kind: str
    classes: tuple[str, ...] | None


@dataclass
class _Reader:
    file: str
    images: str | None
    labels: str | None
    patterns: dict[str, str | None]

    def listing(self) -> ParquetListing:
        paths = self._paths()
        splits = {name: self._split_of(name) for name in paths}
        self._check_splits(splits)
        self.ignored = [f"{name}, whose name says no set" for name, split in splits.items() if split is None]
        kept = [(name, split) for name, split in splits.items() if split is not None]
        shards: dict[str, Shard] = {}
        values: dict[str, list[Any]] = {"train": [], "validation": [], "test": []}
        names: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
        first: tuple[str, _Meaning] | None = None
        for name, split in kept:
            table, meaning, starts = self._read(name, paths[name])
            if table.num_rows:
                first = first or (name, meaning)
                if meaning != first[1]:
                    self._refuse_unlike(*first, name, meaning)
            shards[name] = Shard(paths[name], starts)
            digits = len(str(starts[-1]))
            values[split] += table.column(0).to_pylist()
            names[split] += [f"{name}:{row:0{digits}}" for row in range(starts[-1])]
        if first is None:
            self._refuse("the training set has no rows", "at least two classes of images")
        return self._labelled(names, values, first[1].classes, first[1].images, shards)

    def _refuse_unlike(self, first: str, expected: "_Meaning", name: str, found: "_Meaning") -> NoReturn:
        """Refuse a file whose numbers mean something else than those of the first one."""
        hint = "name the column that is meant in all files"
        for key in ("images", "labels"):
            one, other = getattr(expected, key), getattr(found, key)
            if one != other:
                self._refuse(f"the column of {key} is {one!r} in {first}, and {other!r} in {name}", hint, key)
        if expected.kind != found.kind:
            what = f"labels are {expected.kind} in {first}, and {found.kind} in {name}"
            self._refuse(what, "write them in one way, or leave out files by a pattern", "labels")
        pairs = enumerate(zip_longest(expected.classes or (), found.classes or ()))
        label, (one, other) = next((label, pair) for label, pair in pairs if pair[0] != pair[1])
        what = f"class {label} is {one or 'without a name'} in {first}, and {other or 'without a name'} in {name}"
        self._refuse(what, "write the files with the same names of classes, or leave out files by a pattern", "labels")

    def _paths(self) -> dict[str, Path]:
        """The files by their names, which are relative to the folder of all."""
        path = Path(self.file)
        if has_magic(self.file) and not path.exists():
            found = sorted(map(Path, glob(self.file, recursive=True)))  # noqa: PTH207 - it is absolute
            folder = Path(re.split(r"[*?\[]", self.file)[0].rpartition("/")[0] or "/")
        elif path.is_dir():
            folder, found = path, sorted(each for each in path.rglob("*.parquet") if not each.name.startswith("."))
        else:
            folder, found = path.parent, [path]
        found = [each for each in found if not each.is_dir()]
        if not found:
            hint = "a path is relative to the folder of the YAML file; the files end in .parquet"
            self._refuse("has no Parquet file" if path.is_dir() else "no file has such a name", hint)
        return {str(each.relative_to(folder)): each for each in found}

    def _split_of(self, name: str) -> str | None:
        for split, pattern in self.patterns.items():
            if pattern is not None and (fnmatch(name, pattern) or fnmatch(Path(name).name, pattern)):
                return split
        words = [*re.split(r"[-_.]", Path(name).name), *reversed(Path(name).parts[:-1])]
        found = next(filter(None, map(split_of, words)), None)
        return found if found is None or self.patterns.get(found) is None else None

    def _check_splits(self, splits: dict[str, str | None]) -> None:
        for named, pattern in self.patterns.items():
            if pattern is not None and named not in splits.values():
                self._refuse(f"no file has a name like {pattern}", f"its files: {', '.join(list(splits)[:10])}", named)
        if len(splits) == 1:
            splits.update(dict.fromkeys(splits, "train"))
        if "train" not in splits.values():
            if {"validation", "test"} & set(splits.values()) and None not in splits.values():
                names = ", ".join(list(splits)[:10])
                key = next((split for split, pattern in self.patterns.items() if pattern is not None), "file")
                self._refuse(f"no file is of the training set: {names}", "name files of it train-...", key)
            for name, split in splits.items():
                splits[name] = split or "train"

    def _read(self, name: str, path: Path) -> tuple[Any, "_Meaning", tuple[int, ...]]:
        """The labels of a file, what they mean, and the starts of its groups of rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if is_special(path):
                self._refuse(f"{escaped(name)} is not a file", "delete it, or leave it out by a pattern")
            with pq.ParquetFile(path) as file:
                schema, metadata = file.schema_arrow, file.metadata
                images, labels = self._columns(name, schema)
                groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
                largest = max((group.total_byte_size for group in groups), default=0)
                if largest > _MOST_BYTES:
                    message = f"{name} has {largest / 2**30:.1f} GB in one group of rows"
                    self._refuse(message, "write it anew with row_group_size=100: a group is read at once")
                table = file.read(columns=[labels])
        except (OSError, pa.ArrowException) as error:
            what = str(error).splitlines()[0] if str(error) else type(error).__name__
            hint = "it may be cut short, or be no Parquet file: download it again"
            if isinstance(error, FileNotFoundError):
                what, hint = "No such file or directory", "a path is relative to the folder of the YAML file"
            self._refuse(f"{escaped(name)} cannot be read: {what}", hint)
        starts = np.cumsum([0, *(group.num_rows for group in groups)]).tolist()
        meaning = _Meaning(images, labels, _kind(schema.field(labels).type), _class_names(schema, labels))
        return table, meaning, tuple(starts)

    def _columns(self, name: str, schema: Any) -> tuple[str, str]:
        import pyarrow as pa

        def holds_bytes(kind: Any) -> bool:
            if pa.types.is_struct(kind):
                return "bytes" in [field.name for field in kind]
            return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

        columns = [field.name for field in schema]
        hint = f"its columns: {', '.join(map(str, columns[:20]))}"
        candidates = [field.name for field in schema if holds_bytes(field.type)]
        usual = [each for each in _IMAGES if each in candidates] or (candidates if len(candidates) == 1 else [])
        images = self.images or next(iter(usual), "")
        if images not in candidates:
            what = f"no column {self.images!r} of bytes" if self.images else "no column image of bytes"
            self._refuse(f"{name} has {what}", hint, "images")
        labels = self.labels or next((each for each in _LABELS if each in columns), "")
        if labels not in columns:
            what = f"no column {self.labels!r}" if self.labels else f"no column named {', '.join(_LABELS)}"
            self._refuse(f"{name} has {what}", hint, "labels")
        return images, labels

    def _labelled(
        self,
        names: dict[str, list[str]],
        values: dict[str, list[Any]],
        given: tuple[str, ...] | None,
        column: str,
        shards: dict[str, Shard],
    ) -> ParquetListing:
        for split, found in values.items():
            wrong = [row for row, value in enumerate(found) if _is_none(value)]
            if wrong:
                message = f"{counted(len(wrong), 'image')} of {split} have no label, such as {names[split][wrong[0]]}"
                self._refuse(f"{message}: {found[wrong[0]]!r}", "leave out these files, by a pattern", "labels")
        if not values["train"]:
            self._refuse("the training set has no rows", "at least two classes of images")
        every = [value for split in values.values() for value in split]
        lists = any(isinstance(value, list) for value in every)
        texts = [[self._name(each, given) for each in (value if lists else [value])] for value in every]
        order: list[str]
        if lists:
            classes, labels = of_lists(texts)
        else:
            classes, labels = of_classes([each for [each] in texts])
        if given is not None:  # in the order of the file
            present = set(classes)
            order = [name for name in given if name in present]
            index = [classes.index(name) for name in order]
            labels = labels[:, index] if lists else np.argsort(index)[labels]
            classes = tuple(order)
            if len(order) < len(given):
                self.ignored.append(f"{counted(len(given) - len(order), 'class', 'classes')} without images")
        splits, start = {}, 0
        for split, found in names.items():
            if found:
                splits[split] = Items(found, labels[start : start + len(found)])
                start += len(found)
        if problem := why_not_complete(splits, classes, "these files"):
            self._refuse(problem.message, problem.hint, "labels")
        return ParquetListing(classes, splits, tuple(self.ignored), column, shards)

    def _name(self, value: Any, given: tuple[str, ...] | None) -> str:
        if isinstance(value, bool) or not isinstance(value, int | str):
            message = f"a label is {value!r}, of type {type(value).__name__}"
            self._refuse(message, "allowed: integers, texts, and lists of these", "labels")
        if given is None or isinstance(value, str):
            return str(value)
        if value >= len(given):
            message = f"a label is {value}, and its classes are {len(given)}"
            self._refuse(message, "the names of the classes are in the file's metadata", "labels")
        return given[value]

    def _refuse(self, what: str, hint: str, key: str = "file") -> NoReturn:
        raise Mistakes(Problem(f"{escaped(self.file)}: {what}", key, hint=hint))


def _is_none(value: Any) -> bool:
    """Whether a label means that there is none, as in a test set whose labels are secret."""
    values = value if isinstance(value, list) else [value]
    return any(each is None or each == "" or (isinstance(each, int) and each < 0) for each in values)


def _kind(labels: Any) -> str:
    """What the labels of a column of this type are, in words."""
    import pyarrow as pa

    if pa.types.is_list(labels) or pa.types.is_large_list(labels) or pa.types.is_fixed_size_list(labels):
        return f"lists of {_kind(labels.value_type)}"
    if pa.types.is_dictionary(labels):
        return _kind(labels.value_type)
    if pa.types.is_null(labels):
        return "missing"
    if pa.types.is_integer(labels):
        return "numbers"
    return "texts" if pa.types.is_string(labels) or pa.types.is_large_string(labels) else f"of the type {labels}"


def _class_names(schema: Any, column: str) -> tuple[str, ...] | None:
    """The names of the classes that Hugging Face keeps in a file's metadata; None if it has none."""
    try:
        feature = json.loads(schema.metadata[b"huggingface"])["info"]["features"][column]
        while "names" not in feature:
            feature = feature["feature"]
        names = feature["names"]
        names = list(names.values()) if isinstance(names, dict) else names
    except (KeyError, TypeError, ValueError):
        return None
    is_right = isinstance(names, list) and all(isinstance(each, str) for each in names)
    return tuple(names) if is_right and len(set(names)) == len(names) else None
