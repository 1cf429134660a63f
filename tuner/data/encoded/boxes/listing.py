"""What a dataset of images and boxes holds: its splits, its classes and its boxes, known without decoding an image."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from hashlib import md5
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from tuner.data.decoding import Form, is_image
from tuner.data.encoded.boxes.columns import Boxes
from tuner.data.encoded.boxes.faults import MISSING, UNOPENED, Fault, sound
from tuner.data.encoded.boxes.headers import sizes_in
from tuner.data.encoded.boxes.outlines import masked
from tuner.data.encoded.boxes.placing import Placed, placed
from tuner.data.encoded.listing import Array, Items, Listing, stamps
from tuner.data.encoded.objects.drawing import Object
from tuner.error_text import escaped
from tuner.errors import Mistakes, Problem
from tuner.formatting import counted, some


@dataclass(frozen=True)
class Annotated:
    """The images of one set and their boxes, as files say them, unchecked.

    Args:
        names: The images, by their paths relative to the dataset's folder.
        sizes: Width and height of each one as it is shown, int64 (N, 2); 0 where the files do not say.
        boxes: Their boxes.
        text: Says which box one is, and its value, by its index.
        relative: Whether the corners, and outlines, are shares of width and height, and not in pixels.
        faults: What is wrong with annotations that are not among these.
        unread: The indices of images whose boxes are unknown, because their files cannot be read.
        outlines: What the files have for the mask of each box; None if masks are not read.
    """

    names: list[str]
    sizes: Array
    boxes: Boxes
    text: Callable[[int], str]
    relative: bool = False
    faults: list[Fault] = field(default_factory=list)
    unread: frozenset[int] = frozenset()
    outlines: list[Any] | None = None


@dataclass(frozen=True)
class BoxListing(Listing):
    """Images, named by their paths relative to a folder, and their boxes. What is broken is left out.

    Args:
        row: The index of each image, by its name.
        sizes: Width and height of each image as it is shown, int64 (N, 2).
        boxes: The boxes, by image in ascending order.
        file_sizes: The size of each image's file in bytes, int64 (N,).
        faults: What is broken.
        ids: The number that the files have for each class, by its index; empty if they have none.
    """

    row: dict[str, int]
    sizes: Array
    boxes: Boxes
    file_sizes: Array
    faults: tuple[Fault, ...]
    ids: tuple[int, ...] = ()
    _placed: dict[Form, Placed] = field(default_factory=dict, repr=False, compare=False)

    def placed(self, form: Form) -> Placed:
        """The boxes of the images in a form, which are computed once."""
        if form not in self._placed:
            self._placed.clear()  # many sizes may be tried
            self._placed[form] = placed(self.boxes, self.sizes, form)
        return self._placed[form]

    @cached_property
    def digest(self) -> str:
        """A digest of the names and sizes of all images and of their boxes, the same for a copy of the dataset."""
        found = md5("\n".join([*self.classes, ""]).encode(errors="surrogateescape"))
        for split, items in sorted(self.splits.items()):
            found.update("\n".join([split, *items.names, ""]).encode(errors="surrogateescape"))
        for column in (self.sizes, self.file_sizes, *self.boxes.columns):
            found.update(np.ascontiguousarray(column).data)
        for mask in () if self.boxes.masks is None else self.boxes.masks:
            found.update(mask + b"\n")
        return found.hexdigest()

    @cached_property
    def objects(self) -> dict[str, tuple[Object, ...]]:
        """The objects of each image, by its name; only if their masks are read."""
        assert self.boxes.masks is not None, "masks are read"
        labels, crowds = self.boxes.classes.tolist(), self.boxes.ignored.tolist()
        every = list(map(Object, self.boxes.masks.tolist(), labels, crowds))
        ends = np.searchsorted(self.boxes.images, np.arange(len(self.row)), side="right").tolist()
        return {name: tuple(every[start:end]) for name, start, end in zip(self.row, [0, *ends], ends, strict=False)}

    @classmethod
    def of(
        cls, root: Path, classes: Iterable[str], sets: Mapping[str, Annotated], ignored: Iterable[str] = ()
    ) -> "BoxListing":
        """Check what files say, and read of the images what they do not say.

        Args:
            root: The folder.
            classes: The names of the classes.
            sets: The images and boxes of each split.
            ignored: What was ignored, in phrases for the user.

        Raises:
            Mistakes: A set has no images, or images that are in another one, too.
        """
        classes, splits = tuple(classes), {}
        row: dict[str, int] = {}
        sizes, file_sizes, boxes, faults = [], [], [], []
        for split, each in sets.items():
            if not each.names:
                raise Mistakes(Problem(f"{escaped(str(root))}: {split} has no images", "root", hint="add images to it"))
            if len(set(each.names)) < len(each.names):
                what = f"{escaped(Counter(each.names).most_common(1)[0][0])} is there twice in {split}"
                raise Mistakes(Problem(f"{escaped(str(root))}: {what}", "root", hint="list each image once"))
            if twice := row.keys() & each.names:
                what = f"{counted(len(twice), 'image is', 'images are')} in {split} and in another set"
                hint = "a model must not be measured on images that it has seen: list each image once"
                names = some(sorted(map(escaped, twice)))
                raise Mistakes(Problem(f"{escaped(str(root))}: {what}: {names}", "root", hint=hint))
            found = _Checked(root, each)
            if not found.names:
                what = f"none of the {counted(len(each.names), 'image')} of {split} can be used"
                what += f", for {found.faults[0].text}" if found.faults else ""
                hint = "images and annotations lie in the folders that the set names"
                raise Mistakes(Problem(f"{escaped(str(root))}: {what}: {escaped(each.names[0])}", "root", hint=hint))
            own = replace(found.boxes, images=found.boxes.images + len(row))
            row |= {name: number for number, name in enumerate(found.names, start=len(row))}
            splits[split] = found.names
            sizes.append(found.sizes)
            file_sizes.append(found.file_sizes)
            boxes.append(own)
            faults += found.faults
        joined = Boxes.joined(boxes)
        strata = _strata(joined, len(row), len(classes))
        items = {split: Items(names, strata[[row[name] for name in names]]) for split, names in splits.items()}
        if unlisted := _unlisted(root, sets.values()):
            what = (
                f"{counted(len(unlisted), 'image')} that no set lists ({some(list(map(escaped, unlisted)), count=3)})"
            )
            ignored = (*ignored, what)
        return cls(
            classes,
            items,
            tuple(ignored),
            row,
            np.concatenate(sizes),
            joined,
            np.concatenate(file_sizes),
            tuple(faults),
        )

    def without(self, names: Collection[str], phrase: str) -> Self:
        is_kept = np.array([name not in names for name in self.row], dtype=bool)
        boxes = self.boxes.chosen(is_kept[self.boxes.images])
        return replace(
            super().without(names, phrase),
            row={name: number for number, name in enumerate(name for name in self.row if name not in names)},
            sizes=self.sizes[is_kept],
            boxes=replace(boxes, images=(np.cumsum(is_kept) - 1)[boxes.images]),
            file_sizes=self.file_sizes[is_kept],
            _placed={},
        )

    def rows(self, names: Iterable[str]) -> Array:
        """The indices of images, int64 (N,)."""
        return np.array([self.row[name] for name in names], dtype=np.int64)

    @cached_property
    def size_of(self) -> dict[str, tuple[int, int]]:
        """Width and height of each image, by its name."""
        return {name: (width, height) for name, (width, height) in zip(self.row, self.sizes.tolist(), strict=True)}

    @cached_property
    def can_be_learnt(self) -> bool:
        """Whether a training image has a box that is not ignored; a set that is split off leaves one, too."""
        return not self.boxes_of("train").ignored.all()

    def boxes_of(self, split: str) -> Boxes:
        """The boxes of the images of a split."""
        is_of = np.zeros(len(self.row), dtype=bool)
        is_of[self.rows(self.splits[split].names)] = True
        return self.boxes.chosen(is_of[self.boxes.images])


class Reader(Protocol):
    """Reads the annotations of a dataset. Those that are equal read the same."""

    def __hash__(self) -> int: ...

    def listing(self) -> BoxListing:
        """Read them.

        Raises:
            Mistakes: They cannot be read.
        """


@lru_cache(maxsize=4)
def listing_of(reader: Reader) -> BoxListing:
    """What a reader reads, once."""
    return reader.listing()


class _Checked:
    """The images of a set that are there, and their sound boxes, by image."""

    def __init__(self, root: Path, given: Annotated) -> None:
        self.faults = list(given.faults)
        paths = [os.path.join(root, name) for name in given.names]  # noqa: PTH118 - once for each image
        found = np.array([-1 if stamp is None else stamp[0] for stamp in stamps(paths)], dtype=np.int64)
        is_there = found >= 0
        for index in np.flatnonzero(~is_there).tolist():
            self.faults.append(Fault(MISSING, given.names[index], "there is no such file"))
        is_there[list(given.unread)] = False
        sizes = given.sizes.copy()
        unknown = np.flatnonzero(is_there & (sizes <= 0).any(axis=1)).tolist()
        for index, size in zip(unknown, sizes_in(paths[index] for index in unknown), strict=True):
            if isinstance(size, str):
                self.faults.append(Fault(UNOPENED, given.names[index], size))
                is_there[index] = False
            else:
                sizes[index] = size
        own = np.flatnonzero(is_there[given.boxes.images])
        boxes = given.boxes.chosen(own)
        if given.relative:
            boxes = replace(boxes, corners=boxes.corners * np.tile(sizes[boxes.images], 2))
        is_sound, faults = sound(boxes, sizes, given.names, lambda number: given.text(int(own[number])))
        self.faults += faults
        boxes, own, kept = boxes.chosen(is_sound), own[is_sound], np.flatnonzero(is_there)
        if given.outlines is not None:
            outlines = [given.outlines[index] for index in own.tolist()]
            if given.relative:
                sides = sizes[boxes.images].tolist()
                outlines = [_scaled(polygons, *side) for polygons, side in zip(outlines, sides, strict=True)]
            boxes, faults = masked(boxes, outlines, sizes, given.names, lambda number: given.text(int(own[number])))
            self.faults += faults
        new = np.cumsum(is_there) - 1
        order = np.argsort(boxes.images, kind="stable")
        self.boxes = replace(boxes, images=new[boxes.images]).chosen(order)
        self.names = [given.names[index] for index in kept]
        self.sizes, self.file_sizes = sizes[kept], found[kept]


def _scaled(polygons: list[list[float]], width: int, height: int) -> list[list[float]]:
    """Polygons x1, y1, x2, y2, ... in pixels, of those in shares of an image."""
    return [[value * side for value, side in zip(each, cycle((width, height)), strict=False)] for each in polygons]


def _unlisted(root: Path, sets: Iterable[Annotated]) -> list[str]:
    """The images in the folders of listed ones that no set lists, in order."""
    listed = {os.path.normpath(name) for each in sets for name in each.names}
    found = []
    for folder in {os.path.dirname(name) for name in listed}:  # noqa: PTH120 - once for each image
        with suppress(OSError), os.scandir(root / folder) as entries:  # that images are missing is told elsewhere
            names = (entry.name for entry in entries if is_image(entry.name) and entry.is_file())
            paths = (os.path.join(folder, name) for name in names if not name.startswith("."))  # noqa: PTH118
            found += [path for path in paths if path not in listed]
    return sorted(found)


def _strata(boxes: Boxes, images: int, classes: int) -> Array:
    """The rarest class of each image, by which sets are split off, int64 (images,); `classes` where it has no box."""
    counts = np.bincount(boxes.classes, minlength=classes)
    rank = np.empty(classes, dtype=np.int64)
    by_count = np.argsort(counts, kind="stable")
    rank[by_count] = np.arange(classes)
    lowest = np.full(images, classes, dtype=np.int64)
    np.minimum.at(lowest, boxes.images, rank[boxes.classes])
    strata: Array = np.append(by_count, classes)[lowest]
    return strata
