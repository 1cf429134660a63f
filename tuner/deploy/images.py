"""Images that a model is asked about, in any form in which a user has them, and what they become."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from glob import has_magic
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from torch import Tensor

from tuner.data.decoding import DECODED, Form, Undecodable, decode, fitted, formed, shown_size
from tuner.data.pixels import Bytes, Unclear, as_bytes
from tuner.data.placing import placement
from tuner.deploy.listing import NO_FILE, Item, listed
from tuner.errors import Problem, UserError
from tuner.interfaces.placement import Placement

if TYPE_CHECKING:
    from PIL.Image import Image

    OneImage: TypeAlias = str | os.PathLike[str] | bytes | Image | np.ndarray[Any, Any] | Tensor
    Images: TypeAlias = OneImage | Iterable[OneImage]
else:
    Images = Any

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_DIMENSIONS = 4
"""Those of a batch of arrays."""


@dataclass(frozen=True)
class Decoded:
    """An image as a model takes it, but for its scale.

    Args:
        pixels: uint8 (C, H, W).
        placement: How it was placed there.
    """

    pixels: Bytes
    placement: Placement


def items_of(images: Images) -> Iterator[Item]:
    """Iterate over images; paths of folders and globs are those of all files that they lead to.

    Raises:
        UserError: A folder or a glob leads to no image, or something is no image.
    """
    if isinstance(images, str | os.PathLike):
        path = os.fspath(images)
        is_missing = not (os.path.lexists(path) or has_magic(path))
        yield from [Item(path, path, NO_FILE)] if is_missing else listed([path])
    elif isinstance(images, bytes) or hasattr(images, "getbands"):
        yield Item("", images)
    elif isinstance(images, np.ndarray | Tensor):
        yield from (Item("", each) for each in (images if images.ndim == _DIMENSIONS else [images]))
    elif isinstance(images, Iterable):
        for each in images:
            yield from items_of(each)
    else:
        message = f"{type(images).__name__} is no image"
        raise UserError(Problem(message, hint="give the path of a file, bytes, a PIL image, an array or a tensor"))


def decoded(item: Item, form: Form, check: "Callable[[Image], object]" = lambda image: None) -> Decoded:
    """Bring an image to a form, as the datasets do with their validation images.

    Args:
        item: The image.
        form: The form.
        check: Called with an image that is no array when its header is read, before it is decoded. It raises Unclear
            to have the image not decoded.

    Raises:
        Undecodable: It cannot be read; the message says why.
    """
    if item.fault:
        raise Undecodable(item.fault)
    content = item.content
    if isinstance(content, np.ndarray | Tensor):
        return _of_array(content, form)
    if form.channels not in DECODED:
        raise Undecodable(f"the model takes arrays and tensors of {form.channels} channels, and no files")
    sizes: list[tuple[int, int]] = []

    def opened(image: "Image") -> None:
        check(image)
        sizes.append(shown_size(image))

    if isinstance(content, str | bytes):
        pixels, _ = decode(content, form, opened=opened)
    else:
        opened(content)
        pixels = formed(content, form)
    return Decoded(pixels, placement(sizes[0], form))


def _of_array(array: Any, form: Form) -> Decoded:
    """Bring an array or a tensor to a form."""
    from PIL import Image

    try:
        pixels = as_bytes(array)
    except Unclear as error:
        raise Undecodable(f"it {error.what}: {error.hint}") from None
    channels, height, width = pixels.shape
    placed = placement((width, height), form)
    if channels == form.channels:
        planes = [np.asarray(fitted(Image.fromarray(each), form, Image.Resampling.BILINEAR)) for each in pixels]
        return Decoded(np.stack(planes), placed)
    if channels not in _MODES or form.channels not in DECODED:
        raise Undecodable(f"it has {channels} channels, and the model takes {form.channels}")
    return Decoded(formed(_picture(pixels), form), placed)


def _picture(pixels: Bytes) -> "Image":
    """A PIL image of up to four channels (C, H, W)."""
    from PIL import Image

    planes = [Image.fromarray(each) for each in pixels]
    return planes[0] if len(planes) == 1 else Image.merge(_MODES[len(planes)], planes)
