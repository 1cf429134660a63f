"""The images of Parquet files, of which groups of rows are read at once, or single images where that is possible."""

import threading
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.data.decoding import Undecodable
from tuner.data.encoded.parquet.verbatim import Places, places_of

_KEPT = 256 * 2**20
"""Bytes of the images that a process keeps of the groups of rows that it read last and of which it knows no places. The
last group is kept whatever its size."""


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
        found = _RECENT.image(shard.path, column, group, row - shard.starts[group])
    except Exception as error:  # damaged files raise many types
        raise Undecodable(f"its rows cannot be read: {type(error).__name__}: {error}") from None
    if not found:
        raise Undecodable("it has no bytes")
    return found


class _Recent:
    """The groups of rows that were read last, and the places of the images in the others that can be had one by one.

    Neighbours are asked for one after the other, by several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: OrderedDict[tuple[Path, str, int], Any] = OrderedDict()
        self._places: dict[tuple[Path, str, int], Places | None] = {}

    def image(self, path: Path, column: str, group: int, row: int) -> bytes | None:
        """The bytes of an image: the `row` is that in its group."""
        key = (path, column, group)
        with self._lock:
            places = self._places.get(key)
            if key not in self._groups and places is None:
                self._read(key)
            if key in self._groups:
                self._groups.move_to_end(key)
                found: bytes | None = self._groups[key][row].as_py()
                return found
        assert places is not None
        return places.read(row)

    def _read(self, key: tuple[Path, str, int]) -> None:
        import pyarrow.parquet as pq

        path, column, group = key
        with pq.ParquetFile(path) as file:
            images = file.read_row_group(group, columns=[column], use_threads=False).column(column).combine_chunks()
            images = images.field("bytes") if hasattr(images, "field") else images
            if key not in self._places:
                self._places[key] = _places(path, images, file.metadata.row_group(group), column)
        self._groups[key] = images
        kept = 0 if self._places[key] else _KEPT
        while len(self._groups) > 1 and sum(each.nbytes for each in self._groups.values()) > kept:
            self._groups.popitem(last=False)


def _places(path: Path, images: Any, group: Any, column: str) -> Places | None:
    """The places of the images of a group of rows; None if the file has them compressed or encoded."""
    for number in range(group.num_columns):
        chunk = group.column(number)
        if chunk.path_in_schema in (column, f"{column}.bytes") and chunk.compression == "UNCOMPRESSED":
            start = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)))
            return places_of(path, (each.as_py() for each in images), start, chunk.total_compressed_size)
    return None


_RECENT = _Recent()
