"""Conversion of images of any common type to bytes. What could be read in two ways is refused, never guessed."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
"""An image, uint8 (C, H, W)."""

_MOST_CHANNELS = 4
_HALF_STEP = 0.5 / 255
"""Floats may exceed [0, 1] by less than this, as they do after interpolation: they round to 0 or 255."""

_CONVERTED = {
    "1": "L",
    "P": "RGB",  # the pixels are indices into a palette
    "PA": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "LAB": "RGB",
    "HSV": "RGB",
    "RGBX": "RGB",
    "RGBa": "RGBA",
    "La": "LA",
}
"""Modes of Pillow and the modes to which they are converted; the pixels of other modes are values already."""


class Unclear(ValueError):
    """An image or a label that could be read in more than one way, or in none.

    Args:
        what: What it is.
        hint: What to do.
    """

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


def as_bytes(image: Any) -> Bytes:
    """Convert an image to uint8 (C, H, W).

    Args:
        image: A PIL image of any mode; an array (H, W) or (H, W, C); or a tensor (H, W) or (C, H, W). An array
            (C, H, W) and a tensor (H, W, C) are recognized if one of their dimensions alone can be the channels, at
            most 4. Values are bytes, 16-bit values in [0, 65535] as uint16, booleans, or floats in [0, 1].

    Raises:
        Unclear: The type, the values or the dimensions are ambiguous.
    """
    if isinstance(image, Tensor):
        tensor = image.detach().cpu()
        pixels = (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # NumPy has no bfloat16
        return np.ascontiguousarray(_channels_first(_scaled(pixels), is_tensor=True))
    if hasattr(image, "getbands"):
        with warnings.catch_warnings():  # Pillow advises to keep a palette's transparency; it is dropped on purpose
            warnings.simplefilter("ignore", UserWarning)
            image = plain(image)
    pixels = np.asarray(image)
    return np.ascontiguousarray(_channels_first(_scaled(pixels), is_tensor=False))


def plain(image: "Image") -> "Image":
    """Convert a PIL image to a mode whose pixels are values of grey, or of red, green and blue, with or without alpha.

    Modes with 16 or 32 bits are kept.
    """
    mode = _CONVERTED.get(image.mode)
    return image if mode is None else image.convert(mode)


def reduced(pixels: np.ndarray[Any, Any]) -> Bytes:
    """Reduce values in [0, 65535] to bytes, rounded."""
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _scaled(pixels: np.ndarray[Any, Any]) -> Bytes:
    kind = pixels.dtype
    if kind == np.uint8:
        return pixels
    if kind == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if kind == np.uint16 or kind == np.dtype(">u2"):
        return reduced(pixels)
    hint = "return bytes in [0, 255] (uint8), 16-bit values (uint16), or floats in [0, 1]"
    if not (np.issubdtype(kind, np.integer) or np.issubdtype(kind, np.floating)):
        raise Unclear(f"is no image: its values are {kind}", hint)
    if pixels.size == 0:
        raise Unclear(f"has the shape {pixels.shape}: it has no pixels", "leave it out of the dataset")
    low, high = pixels.min(), pixels.max()
    if np.issubdtype(kind, np.integer):
        fix = ""
        if low >= 0 and high <= 65535:
            fix = "; image.astype(np.uint8), or Image.convert('L'), if these are bytes, and astype(np.uint16) if not"
        raise Unclear(f"is {kind} in [{low}, {high}]: its scale is ambiguous", hint + fix)
    if not np.isfinite(pixels).all():
        raise Unclear("has values that are NaN or infinite", hint)
    if low < -_HALF_STEP or high > 1 + _HALF_STEP:
        fix = "divide by 255, or return uint8" if low >= 0 and high <= 255 else "do not normalize: the model does that"
        raise Unclear(f"is {kind} in [{low:g}, {high:g}], not in [0, 1]", fix)
    scaled: Bytes = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
    return scaled


def _channels_first(pixels: Bytes, *, is_tensor: bool) -> Bytes:
    if 0 in pixels.shape:
        raise Unclear(f"has the shape {pixels.shape}: it has no pixels", "leave it out of the dataset")
    if pixels.ndim == 2:
        return pixels[None]
    hint = "return a PIL image, an array (H, W, C), or a torch tensor (C, H, W)"
    if pixels.ndim != 3:
        raise Unclear(f"has the shape {pixels.shape}: it is not one image", hint)
    first, last = pixels.shape[0] <= _MOST_CHANNELS, pixels.shape[-1] <= _MOST_CHANNELS
    if is_tensor and not first and not last:
        first = pixels.shape[0] < min(pixels.shape[1:])  # more channels, in PyTorch's order
    if first and last:  # a tiny image: the convention of its type decides
        first = is_tensor
        last = not is_tensor
    if not first and not last:
        what = f"has the shape {pixels.shape}: it is unclear which dimension holds the channels"
        raise Unclear(what, "return a torch tensor (C, H, W) with fewer channels than rows and columns")
    return pixels if first else np.moveaxis(pixels, -1, 0)


def as_class(label: Any) -> int:
    """Convert a label to the index of a class.

    Raises:
        Unclear: It is not an integer of at least 0.
    """
    hint = "return the index of the class, an integer from 0 to the number of classes - 1"
    value = label
    if isinstance(label, Tensor | np.ndarray | np.generic):
        value = label.item() if label.ndim == 0 else None
    if isinstance(value, bool):
        value = int(value)
    if not isinstance(value, int):
        text = repr(label)
        raise Unclear(f"has the label {text if len(text) <= 80 else text[:77] + '...'}", hint)
    if value < 0:
        raise Unclear(f"has the label {value}", hint)
    return value
