"""The rows of Parquet files, of which groups of rows are read at once."""

import threading
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.data.decoding import Undecodable

_KEPT = 256 * 2**20
"""Bytes of the images that are kept from the groups of rows read last; the last group is kept whatever its size."""


@dataclass(frozen=True)
class Shard:
    """A Parquet file.

    Args:
        path: The file.
        starts: The first row of each group of rows, and the number of all rows.
    """

    path: Path
    starts: tuple[int, ...]


def image_of(shards: dict[str, Shard], column: str, name: str) -> bytes:
    """The bytes of an image.

    Args:
        shards: The files by name.
        column: The column of the images.
        name: The name of the image: that of its file, a colon and its row.

    Raises:
        Undecodable: The file is damaged, or the row has no bytes.
    """
    file, _, number = name.rpartition(":")
    shard, row = shards[file], int(number)
    group = bisect_right(shard.starts, row) - 1
    try:
        value = _RECENT.images(shard.path, column, group)[row - shard.starts[group]].as_py()
    except Exception as error:  # damaged files raise many types
        raise Undecodable(f"its rows cannot be read: {type(error).__name__}: {error}") from None
    found = value["bytes"] if isinstance(value, dict) else value
    if not found:
        raise Undecodable("it has no bytes")
    assert isinstance(found, bytes)
    return found


class _Recent:
    """The groups of rows that were read last. Neighbours are asked for one after the other, by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: OrderedDict[tuple[Path, str, int], Any] = OrderedDict()

    def images(self, path: Path, column: str, group: int) -> Any:
        """The images of a group of rows, as an array of Arrow."""
        import pyarrow.parquet as pq

        key = (path, column, group)
        with self._lock:
            if key not in self._groups:
                with pq.ParquetFile(path) as file:
                    table = file.read_row_group(group, columns=[column], use_threads=False)
                self._groups[key] = table.column(column).combine_chunks()
                while len(self._groups) > 1 and sum(each.nbytes for each in self._groups.values()) > _KEPT:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(key)
            return self._groups[key]


_RECENT = _Recent()
