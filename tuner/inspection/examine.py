"""Image files, each decoded once as training would decode it, and digests of those that may be the same."""

import contextlib
import hashlib
import io
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from tuner.data.decoding import Encoded, Form, Undecodable, decode, orientation, quiet

if TYPE_CHECKING:
    from PIL.Image import Image

_CHUNK = 256
"""Files between two reports of progress."""
_BATCH = 16
"""Files that a thread examines at a time."""
_WHOLE = 2**22
"""Bytes up to which a file is read as a whole, once for its pixels and its digest."""
_SMALL = Form(0, 16, 16, "squash")
"""What files are decoded to: a JPEG of many pixels is decoded at an eighth of its size then, which reads all of it."""


@dataclass(slots=True)
class Examined:
    """What an image file is.

    Args:
        width: In pixels, as it is shown; 0 if unknown.
        height: In pixels, as it is shown; 0 if unknown.
        mode: Pillow's name of its pixels' format, such as ``RGB``; empty if unknown.
        is_rotated: Whether its EXIF data say that a viewer has to rotate it.
        has_frames: Whether it has more frames than the first one, which is used.
        failure: Why it cannot be decoded; empty if it can.
        digest: A digest of its bytes; empty if no other file has as many, or it cannot be read.
    """

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
            return Examined(failure=str(error))

    def look_at(indices: range) -> list[Examined]:
        return [look(index) for index in indices]

    with quiet(), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for section in _sections(len(names)):
            indices = range(len(names))[section]
            batches = [indices[start : start + _BATCH] for start in range(0, len(indices), _BATCH)]
            seen = [each for batch in pool.map(look_at, batches) for each in batch]
            found += seen
            broken += sum(bool(each.failure) for each in seen)
            progress(section.stop, len(names), broken)
    return found


def size_of(content: str | bytes) -> tuple[int, int] | None:
    """The width and the height of an image as it is shown, by its header alone; None if that cannot be read."""
    from PIL import Image

    examined = Examined()
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            _read_header(image, examined)
    except Exception:  # Pillow's plugins raise many types for damaged files
        return None
    return examined.width, examined.height


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
    examined = Examined()
    is_alone = isinstance(content, str) and size not in shared
    if isinstance(content, str) and 0 < size <= _WHOLE:
        with contextlib.suppress(OSError):  # decoding says why it cannot be read
            content = _read(content)
    try:
        opened = partial(_read_header, examined=examined)
        _, examined.has_frames = decode(content, _SMALL, only_grey=only_grey, opened=opened)
    except Undecodable as error:
        examined.failure = str(error)
    if not is_alone:
        with contextlib.suppress(OSError):
            examined.digest = _digest(content)
    return examined


def _read_header(image: "Image", examined: Examined) -> None:
    """Take over what the header of an image says."""
    examined.mode = image.mode
    turned = orientation(image)
    examined.is_rotated = turned > 1
    examined.width, examined.height = image.size if turned < 5 else image.size[::-1]


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - a path from scandir may not be UTF-8
        return file.read()


def _digest(content: str | bytes) -> str:
    if isinstance(content, bytes):
        return hashlib.blake2b(content).hexdigest()
    with open(content, "rb") as file:  # noqa: PTH123 - a path from scandir may not be UTF-8
        return hashlib.file_digest(file, "blake2b").hexdigest()
