"""Masks of the objects in boxes, and what is wrong with them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tuner.data.encoded.boxes.columns import Boxes
from tuner.data.encoded.boxes.faults import BROKEN_MASK, ELSEWHERE, NO_MASK, Fault
from tuner.data.encoded.listing import Array
from tuner.data.encoded.objects.encoding import BrokenMask, encoded

_TOLERANCE = 1.0
"""Pixels by which a mask may lie beside its box."""


def masked(
    boxes: Boxes, outlines: Sequence[Any], sizes: Array, names: list[str], text: Callable[[int], str]
) -> tuple[Boxes, list[Fault]]:
    """Give objects their masks.

    Args:
        boxes: The boxes of the objects, which are sound.
        outlines: What a file has for each one's mask; None where it has nothing.
        sizes: Width and height of each image, int64 (N, 2).
        names: The names of the images.
        text: Says which object one is, by its index.

    Returns:
        Those whose masks are sound, with these, and what is wrong with the others.
    """
    masks = np.empty(len(boxes), dtype=object)
    is_sound = np.zeros(len(boxes), dtype=bool)
    faults = []
    for index, (image, outline) in enumerate(zip(boxes.images.tolist(), outlines, strict=True)):
        width, height = sizes[image].tolist()
        if not outline:
            faults.append(Fault(NO_MASK, names[image], text(index)))
            continue
        try:
            masks[index], place = encoded(outline, height, width)
        except BrokenMask as error:
            faults.append(Fault(BROKEN_MASK, names[image], f"{text(index)}: {error}"))
            continue
        x1, y1, x2, y2 = boxes.corners[index].tolist()
        left, top, right, bottom = place
        if max(left - x2, x1 - right, top - y2, y1 - bottom) > _TOLERANCE:
            where = f"its mask reaches from ({left:g}, {top:g}) to ({right:g}, {bottom:g})"
            faults.append(Fault(ELSEWHERE, names[image], f"{text(index)}: {where}"))
        else:
            is_sound[index] = True
    return replace(boxes.chosen(is_sound), masks=masks[is_sound]), faults
