"""Label files of YOLO: a line for each box, in shares of the width and the height of its image."""

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from tuner.data.encoded.boxes.columns import Boxes
from tuner.data.encoded.boxes.faults import EMPTY, MALFORMED, NO_CLASS, NO_NUMBER, NO_SHARE, UNREAD, Fault, Kind
from tuner.data.encoded.boxes.listing import Annotated
from tuner.error_text import one_line

_THREADS, _CHUNK = 8, 200
_TOLERANCE = 1e-3
"""By how much a share may leave [0, 1]: tools round differently."""
_LINE = "a line is class, centre x, centre y, width, height; or class, x1, y1, x2, y2, ... of an outline"


@dataclass(frozen=True)
class Labels:
    """What label files may say.

    Args:
        classes: The number of classes.
        has_keypoints: Whether key points follow each box.
        has_outlines: Whether the outlines of the objects are read, and not their boxes alone.
    """

    classes: int
    has_keypoints: bool = False
    has_outlines: bool = False

    def annotated(self, names: list[str], files: list[str], folder: Path) -> Annotated:
        """Read the boxes of images.

        Args:
            names: The images, as the dataset calls them.
            files: The label file of each one; one that is not there says that its image has no boxes.
            folder: The dataset's folder, to which the files are relative.
        """
        rows: list[tuple[float, ...]] = []
        images: list[int] = []
        lines: list[int] = []
        outlines: list[list[list[float]]] | None = [] if self.has_outlines else None
        faults: list[Fault] = []
        unread: list[int] = []
        for number, found in enumerate(self._read(folder / each for each in files)):
            rows += found.rows
            lines += found.lines
            if outlines is not None:
                outlines += found.outlines
            images += [number] * len(found.rows)
            if found.failure:
                faults.append(Fault(UNREAD, names[number], f"{files[number]}: {found.failure}"))
                unread.append(number)
            faults += [Fault(kind, names[number], f"{files[number]}, {text}") for kind, text in found.faults]
        table = np.array(rows, dtype=np.float64).reshape(-1, 5)
        of = np.array(images, dtype=np.int64)
        boxes = Boxes(of, table[:, 1:], table[:, 0].astype(np.int64), np.zeros(len(of), dtype=bool))

        def text(index: int) -> str:
            file = files[images[index]]
            with (folder / file).open(encoding="utf-8-sig") as opened:
                line = next(islice(opened, lines[index] - 1, None), "")
            return f"{file}, line {lines[index]}: {one_line(line)}"

        sizes = np.zeros((len(names), 2), dtype=np.int64)
        return Annotated(
            names, sizes, boxes, text, relative=True, faults=faults, unread=frozenset(unread), outlines=outlines
        )

    def _read(self, paths: Iterable[Path]) -> Iterator["_Read"]:
        each = iter(paths)
        with ThreadPoolExecutor(_THREADS) as pool:  # a file system on a network takes milliseconds for each
            for found in pool.map(self._read_all, iter(lambda: list(islice(each, _CHUNK)), [])):
                yield from found

    def _read_all(self, paths: list[Path]) -> list["_Read"]:
        return [self._file(path) for path in paths]

    def _file(self, path: Path) -> "_Read":
        read = _Read()
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            return read
        except (OSError, UnicodeDecodeError) as error:
            read.failure = str(error)
            return read
        seen: set[str] = set()
        for number, line in enumerate(text.splitlines(), start=1):
            if not line or line.isspace() or line in seen:  # some tools write a box twice
                continue
            seen.add(line)
            found = self._line(line)
            if isinstance(found, _Object):
                read.rows.append(found.row)
                read.lines.append(number)
                if self.has_outlines:
                    read.outlines.append(found.polygons)
            else:
                read.faults.append((found.kind, f"line {number}: {one_line(line)}: {found.why}"))
        return read

    def _line(self, line: str) -> "_Object | _Wrong":
        words = line.split()
        if self.has_keypoints:
            words = words[:5]
        count = len(words)
        if count != 5 and (count < 7 or count % 2 == 0):
            return _Wrong(MALFORMED, f"it has {count} {'value' if count == 1 else 'values'}; {_LINE}")
        try:
            label, *values = map(float, words)
        except ValueError:
            return _Wrong(NO_NUMBER, _LINE)
        if not (math.isfinite(label) and all(map(math.isfinite, values))):
            return _Wrong(NO_NUMBER, _LINE)
        if not 0 <= label < self.classes or label != int(label):
            return _Wrong(NO_CLASS, f"classes are 0 to {self.classes - 1}")
        if count == 5 and min(values[2:]) < 0:
            return _Wrong(EMPTY, f"its {'width' if values[2] < 0 else 'height'} is negative")
        if min(values) < -_TOLERANCE or max(values) > 1 + _TOLERANCE:
            return _Wrong(NO_SHARE, "its values are not all from 0 to 1")
        if count == 5:
            x, y, width, height = values
            return _Object((label, x - width / 2, y - height / 2, x + width / 2, y + height / 2), [])
        across, down = values[::2], values[1::2]
        return _Object((label, min(across), min(down), max(across), max(down)), [values])


@dataclass(frozen=True, slots=True)
class _Object:
    """What a line says.

    Args:
        row: The class, and the corners of the box.
        polygons: The outline, as polygons x1, y1, x2, y2, ...; none if the line has a box.
    """

    row: tuple[float, float, float, float, float]
    polygons: list[list[float]]


@dataclass(frozen=True, slots=True)
class _Wrong:
    kind: Kind
    why: str


@dataclass(slots=True)
class _Read:
    """What a label file says: class and corners of each box, its line and its outline if that is read; what is wrong;
    and why the file cannot be read.
    """

    rows: list[tuple[float, float, float, float, float]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    outlines: list[list[list[float]]] = field(default_factory=list)
    faults: list[tuple[Kind, str]] = field(default_factory=list)
    failure: str = ""
