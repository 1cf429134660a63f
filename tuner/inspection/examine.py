"""Image files, each decoded once as training would decode it, and digests of those that may be the same."""

import contextlib
import hashlib
import io
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from tuner.data.decoding import Encoded, Form, Undecodable, decode, orientation, quiet

_CHUNK = 256
"""Files between two reports of progress."""
_SMALL = Form(0, 16, 16, "squash")
"""What files are decoded to: a JPEG of many pixels is decoded at an eighth of its size then, which reads all of it."""


@dataclass(slots=True)
class Examined:
    """What an image file is.

    Args:
        size: In bytes; -1 if unknown.
        width: In pixels, as it is shown; 0 if unknown.
        height: In pixels, as it is shown; 0 if unknown.
        mode: Pillow's name of its pixels' format, such as ``RGB``; empty if unknown.
        is_rotated: Whether its EXIF data say that a viewer has to rotate it.
        has_frames: Whether it has more frames than the first one, which is used.
        failure: Why it cannot be decoded; empty if it can.
        digest: A digest of its bytes; empty if no other file has as many, or it cannot be read.
    """

    size: int = -1
    width: int = 0
    height: int = 0
    mode: str = ""
    is_rotated: bool = False
    has_frames: bool = False
    failure: str = ""
    digest: str = ""


Progress = Callable[[int, int, int], object]
"""Called with the number of files so far, of all of them, and of broken ones."""


def examine(
    names: Sequence[str],
    encoded: Encoded,
    sizes: Sequence[int],
    progress: Progress,
    *,
    only_grey: bool = False,
) -> list[Examined]:
    """Decode each image, with as many threads as torch uses; no more than a few images are in memory at once.

    Args:
        names: The images.
        encoded: Returns the path of an image, or the content of its file, by its name.
        sizes: The sizes of their files in bytes; -1 if unknown. Only files of the same size are compared.
        progress: Called every now and then.
        only_grey: Whether training fails on images in colour.
    """
    shared = {size for size, count in Counter(sizes).items() if count > 1 and size >= 0}
    found: list[Examined] = []
    broken = 0

    def look(index: int) -> Examined:
        try:
            return _look(encoded(names[index]), sizes[index], shared, only_grey)
        except Undecodable as error:
            return Examined(sizes[index], failure=str(error))

    with quiet(), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for section in _sections(len(names)):
            seen = list(pool.map(look, range(len(names))[section]))
            found += seen
            broken += sum(bool(each.failure) for each in seen)
            progress(section.stop, len(names), broken)
    return found


def size_of(content: str | bytes) -> tuple[int, int] | None:
    """The width and the height of an image as it is shown, by its header alone; None if that cannot be read."""
    header = _header(content)
    return (header.width, header.height) if header.width else None


def _sections(count: int) -> Iterator[slice]:
    """Sections of a list: small ones first, so that there is progress soon where each file takes long."""
    start, size = 0, 16
    while start < count:
        began = time.perf_counter()
        yield slice(start, min(start + size, count))
        start += size
        size = min(_CHUNK, 2 * size) if time.perf_counter() - began < 1 else size


def _look(content: str | bytes, size: int, shared: set[int], only_grey: bool) -> Examined:
    """Read the header of an image, decode it, and digest its file unless no other has its size."""
    examined = _header(content)
    examined.size = size
    try:
        _, examined.has_frames = decode(content, _SMALL, only_grey=only_grey)
    except Undecodable as error:
        examined.failure = str(error)
    with contextlib.suppress(OSError):
        examined.digest = _digest(content, size, shared)
    return examined


def _header(content: str | bytes) -> Examined:
    """What the header of an image says. Decoding it says what is wrong with it."""
    from PIL import Image

    examined = Examined()
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            examined.mode = image.mode
            turned = orientation(image)
            examined.is_rotated = turned > 1
            examined.width, examined.height = image.size if turned < 5 else image.size[::-1]
    except Exception:  # Pillow's plugins raise many types for damaged files
        pass
    return examined


def _digest(content: str | bytes, size: int, shared: set[int]) -> str:
    if isinstance(content, bytes):
        return hashlib.blake2b(content).hexdigest()
    if size not in shared:
        return ""
    with open(content, "rb") as file:  # noqa: PTH123 - a path from scandir may not be UTF-8
        return hashlib.file_digest(file, "blake2b").hexdigest()
