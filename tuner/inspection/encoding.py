"""Encoding of an image to a file, the opposite of `tuner.data.decoding`."""

import io

import numpy as np

from tuner.data.decoding import DECODED
from tuner.data.pixels import Bytes

_LOSSLESS = 64 * 1024
"""Most bytes of a PNG file; a larger one becomes a JPEG file."""
_QUALITY = 95


def encoded(pixels: Bytes) -> bytes:
    """Encode an image, uint8 (C, H, W), as PNG, or JPEG if that would be large; of other channels as `numpy.save`."""
    from PIL import Image

    file = io.BytesIO()
    if len(pixels) not in DECODED:
        np.save(file, pixels)
        return file.getvalue()
    image = Image.fromarray(np.ascontiguousarray(np.moveaxis(pixels, 0, -1).squeeze(-1 if len(pixels) == 1 else ())))
    image.save(file, "PNG")
    if file.tell() > _LOSSLESS:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
