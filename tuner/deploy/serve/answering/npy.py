"""Arrays in NumPy's format, from a stranger: nothing is unpickled, and nothing is made that was not sent."""

import io
import math
from typing import Any

import numpy as np
from numpy.lib import format as npy

from tuner.data.decoding import Undecodable

_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_KINDS = "buf"
"""Kinds of numbers: booleans, unsigned integers, floats."""


def array_of(content: bytes) -> np.ndarray[Any, Any]:
    """Read an array, without a copy.

    `numpy.load` would make an array of any size that a header of a hundred bytes asks for.

    Raises:
        Undecodable: It is no array of numbers, or not as long as its header says.
    """
    file = io.BytesIO(content)
    try:
        shape, is_fortran, dtype = _READERS[npy.read_magic(file)](file)
    except KeyError:
        raise Undecodable("it is of a version of NumPy's format that holds no array of plain numbers") from None
    except Exception:  # NumPy parses it as Python, which raises many types
        raise Undecodable("its header is not that of an array in NumPy's format") from None
    if dtype.kind not in _KINDS or dtype.itemsize > 8:
        raise Undecodable(f"its values are {dtype}: images are uint8, uint16, or floats in [0, 1]")
    there, wanted = len(content) - file.tell(), math.prod(shape) * dtype.itemsize
    if there != wanted or min(shape, default=1) < 0:
        raise Undecodable(f"its header says {wanted} bytes, and {there} follow")
    values = np.frombuffer(content, dtype, offset=file.tell())
    return values.reshape(shape, order="F" if is_fortran else "C")
