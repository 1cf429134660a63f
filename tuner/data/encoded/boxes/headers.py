"""The sizes of images by their headers alone."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from tuner.data.decoding import Undecodable, quiet, shown_size

_THREADS = 8
_CHUNK = 200


def sizes_in(paths: Iterable[str]) -> Iterator[tuple[int, int] | str]:
    """The width and the height of each image as it is shown; why it cannot be opened, if it cannot."""
    each = iter(paths)
    with quiet(), ThreadPoolExecutor(_THREADS) as pool:  # a file system on a network takes milliseconds for each
        for found in pool.map(_sizes, iter(lambda: list(islice(each, _CHUNK)), [])):
            yield from found


def _sizes(paths: list[str]) -> list[tuple[int, int] | str]:
    found: list[tuple[int, int] | str] = []
    for path in paths:
        try:
            found.append(_size(path))
        except Undecodable as error:
            found.append(str(error))
    return found


def _size(path: str) -> tuple[int, int]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return shown_size(image)
    except UnidentifiedImageError:
        raise Undecodable("it is not an image of a format that Pillow reads") from None
    except OSError as error:
        raise Undecodable(error.strerror or str(error)) from None
    except Exception as error:  # Pillow's plugins raise many types for damaged files
        raise Undecodable(f"{type(error).__name__}: {error}") from None
