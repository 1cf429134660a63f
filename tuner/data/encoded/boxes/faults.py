"""What is wrong with annotations, each with the file, what it is of, and its value."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from tuner.data.encoded.boxes.columns import Boxes
from tuner.data.encoded.listing import Array
from tuner.error_text import escaped
from tuner.errors import Problem
from tuner.formatting import counted, some

_TOLERANCE = 1.0
"""Pixels by which a box may end beyond its image: tools round differently. It is clipped."""
_SHOWN = 3


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Args:
        of: What has it, one and several, such as ``box`` and ``boxes``.
        one: What one has, such as ``has no area``.
        many: The same of several.
        hint: What to do.
    """

    of: tuple[str, str]
    one: str
    many: str
    hint: str

    def told(self, count: int, joint: str = " ") -> str:
        """How many there are, in words."""
        return f"{counted(count, *self.of)}{joint}{self.one if count == 1 else self.many}"


_BOX, _ANNOTATION, _IMAGE = ("box", "boxes"), ("annotation", "annotations"), ("image", "images")
NO_NUMBER = Kind(_BOX, "has a value that is no number", "have values that are no numbers", "write numbers")
OUTSIDE = Kind(
    _BOX,
    "lies outside of its image",
    "lie outside of their images",
    "boxes are in pixels of the image as it is shown, upright, from its upper left corner",
)
BEYOND = Kind(
    _BOX,
    "ends beyond its image",
    "end beyond their images",
    f"clip boxes to their images; up to {_TOLERANCE:g} pixel is allowed",
)
NO_SHARE = Kind(
    _BOX,
    "is not given in shares of its image",
    "are not given in shares of their images",
    "values are from 0 to 1: divide x and width by the width of the image, y and height by its height",
)
EMPTY = Kind(_BOX, "has no area", "have no area", "a box has a width and a height above 0")
NO_CLASS = Kind(_BOX, "is of an unknown class", "are of unknown classes", "declare their classes, or delete them")
NO_IMAGE = Kind(_ANNOTATION, "is of an unknown image", "are of unknown images", "add the images to the list")
TWICE = Kind(_ANNOTATION, "repeats an id", "repeat ids", "give each annotation an id of its own")
MALFORMED = Kind(_ANNOTATION, "is malformed", "are malformed", "write them as the format has them")
UNREAD = Kind(
    ("annotation file", "annotation files"),
    "cannot be read",
    "cannot be read",
    "repair the files, or take their images out of the set",
)
NO_MASK = Kind(
    _ANNOTATION,
    "has no mask",
    "have no masks",
    "write their outlines (segmentation in COCO's files; class, x1, y1, x2, y2, ... in YOLO's), or leave out "
    "instances: true, for boxes alone",
)
BROKEN_MASK = Kind(
    _ANNOTATION,
    "has a broken mask",
    "have broken masks",
    "a mask is a list of polygons [x1, y1, x2, y2, x3, y3, ...], or an object with the size of the image and counts",
)
ELSEWHERE = Kind(
    _ANNOTATION,
    "has its mask beside its box",
    "have their masks beside their boxes",
    "both are in pixels of the image as it is shown, upright, from its upper left corner",
)
MISSING = Kind(_IMAGE, "is not there", "are not there", "add the files, or take them out of the annotations")
UNOPENED = Kind(_IMAGE, "cannot be opened", "cannot be opened", "repair the files, or delete them")
OTHER_SIZE = Kind(
    _IMAGE,
    "is of another size than its annotations say",
    "are of other sizes than their annotations say",
    "boxes are those of the image as it is shown: annotate the images that are in the folder",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong.

    Args:
        kind: What sort of fault.
        name: The image, as the dataset calls it, or the file if there is no such image.
        text: What is wrong, with the annotation and the value.
    """

    kind: Kind
    name: str
    text: str

    @property
    def reason(self) -> str:
        """What is wrong, of what, such as ``the box has no area: annotation 3 with the box [1, 2, 0, 4]``."""
        return f"the {self.kind.of[0]} {self.kind.one}: {self.text}"


def problems_of(faults: Iterable[Fault], source: str, key: str) -> list[Problem]:
    """One problem for each kind of fault.

    Args:
        faults: The faults.
        source: The dataset.
        key: The field that names it.
    """
    by_kind: dict[Kind, list[str]] = {}
    for fault in faults:
        by_kind.setdefault(fault.kind, []).append(escaped(f"{fault.name}: {fault.text}"))
    problems = []
    for kind, texts in by_kind.items():
        message = f"{source}: {kind.told(len(texts))}: {some(texts, separator='; ', count=_SHOWN)}"
        skipping = f"; skip_broken: true leaves {'it' if len(texts) == 1 else 'them'} out"
        problems.append(Problem(message, key, hint=kind.hint + skipping, items=tuple(texts)))
    return problems


def skipped(faults: Iterable[Fault]) -> list[str]:
    """What is left out, in a phrase for each kind of fault."""
    by_kind: dict[Kind, list[str]] = {}
    for fault in faults:
        by_kind.setdefault(fault.kind, []).append(escaped(fault.name))
    return [
        f"{kind.told(len(names), ' that ')} ({some(list(dict.fromkeys(names)), count=_SHOWN)})"
        for kind, names in by_kind.items()
    ]


def sound(boxes: Boxes, sizes: Array, names: list[str], text: Callable[[int], str]) -> tuple[Array, list[Fault]]:
    """Check boxes against their images.

    Args:
        boxes: The boxes.
        sizes: Width and height of each image, int64 (N, 2).
        names: The names of the images.
        text: Says which box one is, and its value, by its index.

    Returns:
        Which boxes are sound, bool (B,), and what is wrong with the others.
    """
    first, second = boxes.corners[:, :2], boxes.corners[:, 2:]
    limits = sizes[boxes.images]
    with np.errstate(invalid="ignore"):
        checks = (
            (NO_NUMBER, ~np.isfinite(boxes.corners).all(axis=1)),
            (EMPTY, (second <= first).any(axis=1)),
            (OUTSIDE, ((second <= 0) | (first >= limits)).any(axis=1)),
            (BEYOND, ((first < -_TOLERANCE) | (second > limits + _TOLERANCE)).any(axis=1)),
        )
    is_sound = np.ones(len(boxes), dtype=bool)
    faults = []
    for kind, wrong in checks:
        for index in np.flatnonzero(wrong & is_sound).tolist():
            image = boxes.images[index]
            width, height = sizes[image].tolist()
            faults.append(Fault(kind, names[image], f"{text(index)}, and the image has {width}x{height} pixels"))
        is_sound &= ~wrong
    return is_sound, faults
