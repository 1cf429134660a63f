"""Annotation files of Pascal VOC: the objects in an image, in XML."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from tuner.data.encoded.boxes.columns import Boxes
from tuner.data.encoded.boxes.faults import MALFORMED, NO_CLASS, UNREAD, Fault
from tuner.data.encoded.boxes.listing import Annotated
from tuner.error_text import one_line
from tuner.formatting import some

_THREADS, _CHUNK = 8, 100
_EDGES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(slots=True)
class Described:
    """What an annotation file says.

    Args:
        size: Width and height of the image; 0 if unknown.
        names: The class of each object.
        edges: The first and last column and row of pixels of each, as they are written, counted from 1.
        difficult: Whether each is difficult.
        numbers: The number of each in the file, from 1.
        faults: What is wrong with others.
        failure: Why the file cannot be read; empty if it can.
    """

    size: tuple[int, int] = (0, 0)
    names: list[str] = field(default_factory=list)
    edges: list[tuple[float, ...]] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    failure: str = ""


def described(paths: Iterable[Path]) -> Iterator[Described]:
    """Read annotation files."""
    each = iter(paths)
    with ThreadPoolExecutor(_THREADS) as pool:  # a file system on a network takes milliseconds for each
        for found in pool.map(_read_all, iter(lambda: list(islice(each, _CHUNK)), [])):
            yield from found


def annotated(names: list[str], files: list[str], found: list[Described], classes: tuple[str, ...]) -> Annotated:
    """The boxes of images.

    Args:
        names: The images, as the dataset calls them.
        files: Their annotation files, for messages.
        found: What these say.
        classes: The names of the classes.
    """
    index = {name: number for number, name in enumerate(classes)}
    faults, images, labels, edges, difficult, numbers = [], [], [], [], [], []
    for image, (name, file, each) in enumerate(zip(names, files, found, strict=True)):
        if each.failure:
            faults.append(Fault(UNREAD, name, f"{file}: {each.failure}"))
        faults += [Fault(MALFORMED, name, f"{file}: {text}") for text in each.faults]
        for label, box, is_difficult, number in zip(each.names, each.edges, each.difficult, each.numbers, strict=True):
            if label not in index:
                text = f"{file}: object {number} is {one_line(label)!r}; classes: {some(classes)}"
                faults.append(Fault(NO_CLASS, name, text))
                continue
            images.append(image)
            labels.append(index[label])
            edges.append(box)
            difficult.append(is_difficult)
            numbers.append(number)
    corners = np.array(edges, dtype=np.float64).reshape(-1, 4)
    corners[:, :2] -= 1  # the first pixel is 1, and the last one belongs to the box
    of = np.array(images, dtype=np.int64)
    boxes = Boxes(of, corners, np.array(labels, dtype=np.int64), np.array(difficult, dtype=bool))

    def text_of(box: int) -> str:
        values = ", ".join(f"{key} {value:g}" for key, value in zip(_EDGES, edges[box], strict=True))
        return f"{files[images[box]]}: object {numbers[box]} ({classes[labels[box]]}) with {values}"

    sizes = np.array([each.size for each in found], dtype=np.int64).reshape(-1, 2)
    unread = frozenset(number for number, each in enumerate(found) if each.failure)
    return Annotated(names, sizes, boxes, text_of, faults=faults, unread=unread)


def _read_all(paths: list[Path]) -> list[Described]:
    return [_read(path) for path in paths]


def _read(path: Path) -> Described:
    try:
        root = ElementTree.parse(os.fspath(path)).getroot()
    except FileNotFoundError:
        return Described(failure="there is no such file")
    except OSError as error:
        return Described(failure=error.strerror or str(error))
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        return Described(failure=f"it is no XML: {one_line(str(error))}")
    found = Described(size=(_side(root, "width"), _side(root, "height")))
    for number, each in enumerate(root.iterfind("object"), start=1):
        name, box = (each.findtext("name") or "").strip(), each.find("bndbox")
        if not name:
            found.faults.append(f"object {number} has no name")
            continue
        texts = [None if box is None else box.findtext(edge) for edge in _EDGES]
        try:
            edges = tuple(float(text or "") for text in texts)
        except ValueError:
            words = ", ".join(f"{key} {one_line(text or 'missing')}" for key, text in zip(_EDGES, texts, strict=True))
            found.faults.append(f"object {number} ({one_line(name)}) has {words}")
            continue
        found.names.append(name)
        found.edges.append(edges)
        found.difficult.append((each.findtext("difficult") or "").strip() == "1")
        found.numbers.append(number)
    return found


def _side(root: ElementTree.Element, key: str) -> int:
    try:
        return max(0, int(root.findtext(f"size/{key}") or 0))
    except ValueError:
        return 0
