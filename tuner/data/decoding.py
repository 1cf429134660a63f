"""Decoding of image files to bytes of one shape."""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from tuner.data.pixels import Bytes, Unclear, plain, reduced

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling

Resize = Literal["crop", "squash", "pad"]

_GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F"}
_STUBS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow recognizes, but decodes only with other programs, or never."""
_ORIENTATION = 0x0112
_CHUNK = 32
IN_COLOUR = "it is in colour"
"""Why an image cannot be decoded where all have to be grey."""


class Undecodable(Exception):
    """A file is not an image that can be decoded; the message says why, without the file's name."""


DECODED = (1, 3)
"""The channels to which files are decoded."""


@dataclass(frozen=True)
class Form:
    """The form that images are decoded to.

    Args:
        channels: 1 for grey, 3 for red, green and blue; 0 for what each image has.
        height: In pixels.
        width: In pixels.
        resize: ``crop`` scales an image to cover the form and cuts off what lies beyond; ``pad`` scales it to fit into
            the form, on black; ``squash`` changes its aspect ratio.
    """

    channels: int
    height: int
    width: int
    resize: Resize

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The steps of a model's signature that stand for this form."""
        decode = {"kind": "decode", "channels": self.channels, "orientation": "exif", "frame": 0}
        size = {"height": self.height, "width": self.width}
        return [decode, {"kind": "resize", **size, "interpolation": "bilinear", "fit": self.resize}]


def is_image(name: str) -> bool:
    """Whether the name of a file ends as those of images do."""
    return name[name.rfind(".") :].lower() in suffixes()


@lru_cache(maxsize=1)
def suffixes() -> frozenset[str]:
    """The suffixes of the image files that Pillow decodes, such as ``.jpg``."""
    from PIL import Image

    Image.init()
    return frozenset(suffix for suffix, name in Image.EXTENSION.items() if name in Image.OPEN and name not in _STUBS)


def decode(
    encoded: str | bytes,
    form: Form,
    *,
    only_grey: bool = False,
    opened: Callable[["Image"], object] = lambda image: None,
) -> tuple[Bytes, bool]:
    """Decode an image to uint8 (C, height, width), and say whether it has more frames than the first one.

    Its EXIF rotation is applied, its first frame is used, transparency is dropped, and 16-bit values are reduced to
    bytes. A JPEG is decoded at a fraction of its size where that suffices.

    Args:
        encoded: The path of a file, or what it would contain.
        form: The form of the image.
        only_grey: Whether images in colour are refused.
        opened: Called with the image when its header has been read, before it is decoded.

    Raises:
        Undecodable: The file is not an image, damaged, or has more pixels than Pillow allows.
    """
    from PIL import Image

    with _why_undecodable():
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            opened(image)
            # A camera's JPEG may hold a preview: that is no further frame.
            has_more = image.format != "MPO" and bool(getattr(image, "is_animated", False))
            # Twice the size, so that the interpolation still averages over neighbours.
            image.draft(None, _turned(image, (2 * form.width, 2 * form.height)))
            pixels = _converted(upright(image), form.channels, only_grey)
        return _arranged(_resized(pixels, form)), has_more


def formed(image: "Image", form: Form) -> Bytes:
    """Bring an image of Pillow's to a form, uint8 (C, height, width), as `decode` does with that of a file.

    Raises:
        Undecodable: It cannot be read, or its values are ambiguous.
    """
    with _why_undecodable():
        return _arranged(_resized(_converted(upright(image), form.channels, only_grey=False), form))


@contextlib.contextmanager
def _why_undecodable() -> Iterator[None]:
    """Make Undecodable of what keeps the body from decoding an image."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise Undecodable("it is not an image of a format that Pillow reads") from None
    except Image.DecompressionBombError as error:
        raise Undecodable(f"it is too large: {error}") from None
    except Unclear as error:
        raise Undecodable(error.what) from None
    except OSError as error:
        raise Undecodable(error.strerror or f"it is damaged or cut off: {error}") from None
    except Exception as error:  # Pillow's plugins raise many types for damaged files
        raise Undecodable(f"{type(error).__name__}: {error}") from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress Pillow's warnings of large images below its limit, odd metadata and transparent palettes.

    The filter is the process's: threads must not enter it one by one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass
class Outcome:
    """What happened to many images: why some could not be decoded, and which have more frames than the first one."""

    failures: dict[str, str] = field(default_factory=dict)
    animated: list[str] = field(default_factory=list)


Encoded = Callable[[str], str | bytes]
"""A function that returns the path of an image, or the content of its file, by its name."""


def decode_each(
    names: list[str],
    decoded: Callable[[str], tuple[Bytes, bool]],
    take: Callable[[int, Bytes], None],
    threads: int | None = None,
) -> Outcome:
    """Decode many things, in the order of their names.

    Args:
        names: Their names.
        decoded: Decodes one, from several threads, and says whether it has more frames; it may raise Undecodable.
        take: Called with the index and the pixels of each one, from several threads.
        threads: Number of threads; None for as many as torch uses.
    """

    def run(start: int) -> Outcome:
        outcome = Outcome()
        for index in order[start : start + _CHUNK]:
            name = names[index]
            try:
                image, has_more = decoded(name)
            except Undecodable as error:
                outcome.failures[name] = str(error)
                continue
            take(index, image)
            if has_more:
                outcome.animated.append(name)
        return outcome

    # Neighbours by name often lie side by side, and the rows of a shard must not be read one by one.
    order = sorted(range(len(names)), key=names.__getitem__)
    whole = Outcome()
    with quiet(), ThreadPoolExecutor(max_workers=threads or torch.get_num_threads()) as pool:
        for outcome in pool.map(run, range(0, len(names), _CHUNK)):
            whole.failures |= outcome.failures
            whole.animated += outcome.animated
    if whole.failures:
        whole.failures = {name: whole.failures[name] for name in names if name in whole.failures}
    return whole


def orientation(image: "Image") -> int:
    """The rotation and reflection of a camera's EXIF data, from 1 (none) to 8; from 5 on, width and height swap."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the metadata is damaged, and the image may not be
        return 1
    return value if value in range(1, 9) else 1


def shown_size(image: "Image") -> tuple[int, int]:
    """The width and the height of an image as it is shown: rotated as a camera's EXIF data say."""
    return _turned(image, image.size)


def _turned(image: "Image", size: tuple[int, int]) -> tuple[int, int]:
    """A width and a height as an image is shown, from those as it is stored, or the other way round."""
    return size if orientation(image) < 5 else size[::-1]


def upright(image: "Image") -> "Image":
    """Apply the rotation of a camera's EXIF data."""
    from PIL import Image, ImageOps

    if orientation(image) == 1:
        return image
    transposed = ImageOps.exif_transpose(image)
    assert isinstance(transposed, Image.Image)
    return transposed


def _converted(image: "Image", channels: int, only_grey: bool) -> "Image":
    """Convert to the mode L or RGB."""
    from PIL import Image

    is_grey = image.mode in _GREY
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise Unclear("its values are not those of 16 bits", "")
        image = Image.fromarray(reduced(values))
    elif image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= 1):  # NaN is refused, too
            raise Unclear("its values are floats outside [0, 1]", "")
        image = Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if only_grey and not is_grey:
        raise Unclear(IN_COLOUR, "")
    mode = {1: "L", 3: "RGB"}.get(channels, "L" if is_grey else "RGB")
    image.load()  # within the file's context
    return image if image.mode == mode else plain(image).convert(mode)


def _resized(image: "Image", form: Form) -> "Image":
    from PIL import Image

    return fitted(image, form, Image.Resampling.BILINEAR)


def fitted(image: "Image", form: Form, how: "Resampling", fill: int = 0) -> "Image":
    """Resize an image to the size of a form.

    Args:
        image: The image.
        form: The form.
        how: How pixels are interpolated.
        fill: The value of the pixels that ``pad`` adds.
    """
    from PIL import Image

    size = (form.width, form.height)
    if image.size == size:
        return image
    if form.resize == "squash":
        return image.resize(size, how)
    if form.resize == "crop":
        scale = min(image.width / form.width, image.height / form.height)
        width, height = form.width * scale, form.height * scale
        left, top = (image.width - width) / 2, (image.height - height) / 2
        return image.resize(size, how, box=(left, top, left + width, top + height))
    scale = min(form.width / image.width, form.height / image.height)
    inner = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), how)
    canvas = Image.new(image.mode, size, fill)
    canvas.paste(inner, ((form.width - inner.width) // 2, (form.height - inner.height) // 2))
    return canvas


def _arranged(image: "Image") -> Bytes:
    pixels: Bytes = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
