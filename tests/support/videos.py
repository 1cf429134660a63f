"""Small videos, whose frames are grey: each of the first 29 a step brighter than the one before."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

STEP = 8
"""How much brighter each frame is."""
_MATRIX = b"".join(number.to_bytes(4, "big") for number in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
"""How an MP4 says that it is not rotated."""


def write(file: Path, count: int = 20, rate: int = 10, size: tuple[int, int] = (64, 48), **options: str) -> Path:
    """Write a video of `count` frames, `rate` a second, of a width and height; the upper left corner is black."""
    with av.open(str(file), "w", options=options) as container:
        stream: Any = container.add_stream("mpeg4", rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *size, "yuv420p", 4_000_000
        for number in range(count):
            pixels = np.full((size[1], size[0], 3), brightness(number), np.uint8)
            pixels[: size[1] // 2, : size[0] // 2] = 0
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    return file


def brightness(number: int) -> int:
    """How bright a frame is, from 0 to 255."""
    return 16 + STEP * (number % 29)


def rotate(file: Path) -> None:
    """Have an MP4 say that it is shown rotated clockwise by 90 degrees, as those of upright telephones do."""
    content = file.read_bytes()
    turned = (0, 1 << 16, 0, 0xFFFF0000, 0, 0, 0, 0, 1 << 30)
    head, track = content[: (at := content.index(b"tkhd"))], content[at:]
    matrix = b"".join(number.to_bytes(4, "big") for number in turned)
    file.write_bytes(head + track.replace(_MATRIX, matrix, 1))
