"""Encoding of masks that annotation files have: polygons, or runs of pixels."""

import math
from typing import Any

from tuner.data.encoded.objects.runs import lengths_of
from tuner.error_text import one_line

_NUMBERS = {int, float}


class BrokenMask(Exception):
    """A mask cannot be read; the message says why."""


def encoded(outline: Any, height: int, width: int) -> tuple[bytes, tuple[float, float, float, float]]:
    """Encode a mask as COCO does: as compressed lengths of runs of pixels, column by column.

    Args:
        outline: A list of polygons [x1, y1, x2, y2, ...], or an object with ``size``, [height, width], and ``counts``:
            the lengths of runs without and with the object in turn, as a list or compressed.
        height: Height of the image, in pixels.
        width: Its width.

    Returns:
        The mask, and the corners x1, y1, x2, y2 of what it covers.

    Raises:
        BrokenMask: It is neither of these.
    """
    from hotcoco import mask

    if isinstance(outline, dict):
        counts = _counts(outline, height, width)
        x, y, across, down = mask.toBbox({"size": [height, width], "counts": counts}).tolist()
        if not across:
            raise BrokenMask("its mask has no pixel")
        return counts, (x, y, x + across, y + down)
    if not isinstance(outline, list):
        raise BrokenMask(f"its segmentation is {one_line(repr(outline))}")
    for number, polygon in enumerate(outline):
        _check(polygon, f"polygon {number}")
    xs = [value for polygon in outline for value in polygon[::2]]
    ys = [value for polygon in outline for value in polygon[1::2]]
    parts: Any = mask.frPyObjects(outline, height, width)
    whole = parts[0] if len(parts) == 1 else mask.merge(parts)
    return whole["counts"], (min(xs), min(ys), max(xs), max(ys))


def _check(polygon: Any, which: str) -> None:
    if not isinstance(polygon, list) or not _NUMBERS.issuperset(map(type, polygon)):
        raise BrokenMask(f"{which} is no list of numbers: {one_line(repr(polygon))}")
    if len(polygon) % 2:
        raise BrokenMask(f"{which} has an odd number of values, {len(polygon)}")
    if len(polygon) < 6:
        raise BrokenMask(f"{which} has {len(polygon)} values, and 3 points have 6")
    try:
        is_finite = all(map(math.isfinite, polygon))
    except OverflowError:  # an integer of hundreds of digits
        is_finite = False
    if not is_finite:
        raise BrokenMask(f"{which} has a value that is no number")


def _counts(runs: dict[str, Any], height: int, width: int) -> bytes:
    """The compressed lengths of runs."""
    from hotcoco import mask

    size, counts = runs.get("size"), runs.get("counts")
    if size != [height, width]:
        raise BrokenMask(f"its mask has the size {one_line(repr(size))}, and the image [{height}, {width}]")
    if isinstance(counts, str):
        try:
            found: bytes = mask.rle_from_string(counts, height, width)["counts"]
        except ValueError as error:
            raise BrokenMask(f"its counts cannot be read: {error}") from None
        total = int(lengths_of(found).sum())
    elif isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts):
        total = sum(counts)
    else:
        raise BrokenMask(f"its counts are neither a text nor a list of numbers from 0 on: {one_line(repr(counts))}")
    if total != height * width:
        raise BrokenMask(f"its counts add up to {total} pixels, and the image has {height * width}")
    if isinstance(counts, list):
        found = mask.frPyObjects({"size": size, "counts": counts}, height, width)["counts"]
    return found
