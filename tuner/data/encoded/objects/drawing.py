"""The masks of the objects of an image, one over the other."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tuner.data.encoded.objects.planes import Codes
from tuner.data.encoded.objects.runs import lengths_of, pixels_of
from tuner.interfaces.instances import NUMBERS


class Object(NamedTuple):
    """An object of an image.

    Attributes:
        mask: Its pixels, as COCO's compressed run-length encoding of a mask of the size of the image.
        label: The index of its class.
        is_crowd: Whether it is neither trained on nor measured.
    """

    mask: bytes
    label: int
    is_crowd: bool


def drawn(objects: Sequence[Object], height: int, width: int) -> Codes:
    """Draw objects: smaller ones lie in front of larger ones, and crowds behind all of them.

    They are numbered from the largest one on, crowds last; beyond `NUMBERS` - 1 they are left out.

    Args:
        objects: The objects.
        height: Height of the image, in pixels.
        width: Its width.
    """
    runs = [lengths_of(each.mask) for each in objects]
    areas = [int(lengths[1::2].sum()) for lengths in runs]
    order = sorted(range(len(objects)), key=lambda index: (objects[index].is_crowd, -areas[index]))
    kept = list(enumerate(order[: NUMBERS - 1], start=1))
    crowds = [each for each in kept if objects[each[1]].is_crowd]
    codes = np.zeros(height * width, dtype=np.int32)
    for number, index in [*crowds, *kept[: len(kept) - len(crowds)]]:
        _, label, is_crowd = objects[index]
        code = label * NUMBERS + number
        codes[pixels_of(runs[index])] = -code if is_crowd else code
    return np.ascontiguousarray(codes.reshape(width, height).T)
