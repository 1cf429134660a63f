"""Decoding of images together with their masks: label pictures in which each pixel says its class."""

import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from tuner.data.decoding import Form, Outcome, Undecodable, decode, decode_each, fitted, shown_size, upright
from tuner.data.loading.decoder import Decoder
from tuner.data.pixels import Bytes
from tuner.formatting import some
from tuner.interfaces import IGNORED, Targets

if TYPE_CHECKING:
    from PIL.Image import Image

_UNKNOWN = np.int16(-1)

Code = int | tuple[int, int, int]
"""What a label picture has for a class: a value, or an index into its palette; or a colour."""


@dataclass(frozen=True)
class Codes:
    """What the pixels of label pictures mean.

    Args:
        of_class: The code of each class, by its index.
        ignored: The codes of pixels whose class is unknown.
    """

    of_class: tuple[Code, ...]
    ignored: tuple[Code, ...]

    @property
    def are_colours(self) -> bool:
        """Whether the codes are colours."""
        return any(isinstance(code, tuple) for code in (*self.of_class, *self.ignored))

    def read(self, picture: "Image") -> Bytes:
        """The class of each pixel of a label picture, uint8 (H, W), `IGNORED` where it is unknown.

        Raises:
            Undecodable: A pixel has a value, or a colour, that is neither that of a class nor ignored.
        """
        values = self._values(picture)
        if values.size and values.min() >= 0 and values.max() < len(self._table):
            classes: np.ndarray[Any, np.dtype[np.int16]] = self._table[values]
        else:
            classes = np.full(values.shape, _UNKNOWN)
            for code, number in self._known.items():  # colours: a table of all would take 32 MB
                classes[values == code] = number
        is_unknown = classes == _UNKNOWN
        if is_unknown.any():
            unknown = np.unique(values[is_unknown]).tolist()
            texts = [str(_colour(value)) if self.are_colours else str(value) for value in unknown]
            what = "colours" if self.are_colours else "values"
            raise Undecodable(f"its mask has the {what} {some(texts)}, which are those of no class")
        of_pixels: Bytes = classes.astype(np.uint8)
        return of_pixels

    @cached_property
    def _known(self) -> dict[int, int]:
        """The class of each code, as a number; those of a class before those that are ignored."""
        ignored = {_number(code): IGNORED for code in self.ignored}
        return ignored | {_number(code): number for number, code in enumerate(self.of_class)}

    @cached_property
    def _table(self) -> np.ndarray[Any, np.dtype[np.int16]]:
        """The class of each value up to the largest code; empty for colours."""
        size = 0 if self.are_colours else 2**16
        table = np.full(size, _UNKNOWN)
        for code, number in self._known.items():
            table[code : code + 1] = number
        return table

    def _values(self, picture: "Image") -> np.ndarray[Any, np.dtype[np.int64]]:
        """The code of each pixel as a number, (H, W)."""
        if self.are_colours:
            red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB")).astype(np.int64), -1, 0)
            numbers: np.ndarray[Any, np.dtype[np.int64]] = red << 16 | green << 8 | blue
            return numbers
        if len(picture.getbands()) > 1:
            hint = "the classes have values: give each its [red, green, blue], or save the mask with one channel"
            raise Undecodable(f"its mask has several channels ({picture.mode}), and {hint}")
        values = np.asarray(picture)
        if picture.mode == "F":
            raise Undecodable("its mask has floats for values")
        return values.astype(np.int64)


def _number(code: Code) -> int:
    return code if isinstance(code, int) else code[0] << 16 | code[1] << 8 | code[2]


def _colour(number: int) -> list[int]:
    return [number >> 16 & 255, number >> 8 & 255, number & 255]


@dataclass(frozen=True)
class MaskDecoder(Decoder):
    """Decodes images with their masks, which are resized alike and lie behind the channels of the image.

    Args:
        masks: The path of the mask of each image, by the image's name.
        codes: What the pixels of a mask mean.
    """

    masks: Mapping[str, str]
    codes: Codes

    def _decoded(self, name: str) -> tuple[Bytes, bool]:
        sizes: list[tuple[int, int]] = []

        def opened(image: "Image") -> None:
            sizes.append(shown_size(image))

        pixels, has_more = decode(self.encoded(name), self.form, only_grey=self.only_grey, opened=opened)
        mask = decode_mask(self.masks[name], self.form, self.codes, sizes[0])
        return np.concatenate([pixels, mask[None]]), has_more

    def each_mask(self, names: list[str], take: Callable[[int, Bytes], None]) -> Outcome:
        """Decode the masks of images alone, as `each` does with the images; of these the headers are read."""
        return decode_each(names, lambda name: (self._mask_of(name), False), take)

    def _mask_of(self, name: str) -> Bytes:
        from PIL import Image

        encoded, size = self.encoded(name), None
        with suppress(Exception), Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            size = shown_size(image)  # what is wrong with the image itself is told elsewhere
        return decode_mask(self.masks[name], self.form, self.codes, size)

    def parts(self, decoded: Tensor) -> tuple[Tensor, Targets]:
        return decoded[:, :-1], {"mask": decoded[:, -1]}

    @property
    def settings(self) -> str:
        return f"{super().settings} {self.codes}"

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = super().shape
        return channels + 1, height, width


def decode_mask(path: str, form: Form, codes: Codes, size: tuple[int, int] | None) -> Bytes:
    """Decode a mask to uint8 (height, width); each pixel has the class of the nearest one, and padding is unknown.

    Args:
        path: The file.
        form: The form of the image that it belongs to.
        codes: What its pixels mean.
        size: The width and the height of that image; None if they are unknown.

    Raises:
        Undecodable: It cannot be decoded, is of another size than the image, or has pixels of no class.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            classes = codes.read(upright(picture))
    except (Undecodable, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise many types for damaged files
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Undecodable(f"its mask cannot be decoded: {text}") from None
    height, width = classes.shape
    if size is not None and size != (width, height):
        why = " after it was turned as its EXIF data say" if size == (height, width) else ""
        raise Undecodable(f"its mask has {width}x{height} pixels, and the image {size[0]}x{size[1]}{why}")
    how = Image.Resampling.NEAREST
    return np.asarray(fitted(Image.fromarray(classes), form, how, fill=IGNORED))
