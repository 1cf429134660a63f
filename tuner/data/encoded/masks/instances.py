"""Decoding of images with their masks, and with a second label picture that tells the objects of a class apart."""

import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tuner.data.decoding import Undecodable, decode_each, shown_size, upright
from tuner.data.encoded.masks.decoding import MaskDecoder
from tuner.data.encoded.objects.planes import Codes, Planes
from tuner.data.pixels import Bytes
from tuner.formatting import some
from tuner.interfaces import Targets
from tuner.interfaces.instances import NUMBERS

_APART = 1000
"""A value from here on is that of an object: label * 1000 + a number within its class. Smaller ones are labels."""


@dataclass(frozen=True)
class InstanceMaskDecoder(MaskDecoder):
    """Decodes images with their masks and objects, which are resized alike and lie behind the channels of the image.

    Args:
        pictures: The path of the label picture that tells objects apart, by the image's name.
        labels: The label of each class whose objects are told apart, by its index.
        others: All other labels; what has them is background.
    """

    pictures: Mapping[str, str]
    labels: tuple[int, ...]
    others: tuple[int, ...]

    def _decoded(self, name: str) -> tuple[Bytes, bool]:
        decoded, has_more = super()._decoded(name)
        return np.concatenate([decoded, self._planes.of(self._codes_of(name), self.form)]), has_more

    def _mask_of(self, name: str) -> Bytes:
        self._codes_of(name)  # it may be broken
        return super()._mask_of(name)

    def counts(self, names: list[str]) -> tuple[int, ...]:
        """The number of objects of each class in images, of which the pictures that can be decoded are read alone."""
        found = np.zeros((len(names), len(self.labels)), dtype=np.int64)

        def take(index: int, planes: Bytes) -> None:
            objects = np.unique(np.abs(self._planes.codes(torch.from_numpy(planes)[None]).numpy()))
            found[index] = np.bincount(objects[objects > 0] // NUMBERS, minlength=len(self.labels))

        decode_each(names, lambda name: (self._planes.of(self._codes_of(name), self.form), False), take)
        return tuple(found.sum(axis=0).tolist())

    def _codes_of(self, name: str) -> Codes:
        """The objects of an image in its own size, numbered from the largest one on.

        Groups that nobody took apart are crowds. Beyond `NUMBERS` - 1 objects are left out.
        """
        values = self._values(name)
        found, places, counts = np.unique(values, return_inverse=True, return_counts=True)
        labels = np.where(found >= _APART, found // _APART, found)
        if unknown := found[~np.isin(labels, (*self.labels, *self.others))].tolist():
            raise Undecodable(f"its picture of objects has the values {some(list(map(str, unknown)))} of no label")
        codes = np.zeros(len(found), dtype=np.int32)
        is_group = found < _APART
        is_object = np.isin(labels, self.labels)
        order = [index for index in np.lexsort((-counts, is_group)).tolist() if is_object[index]]
        for number, index in enumerate(order[: NUMBERS - 1], start=1):
            code = self.labels.index(int(labels[index])) * NUMBERS + number
            codes[index] = -code if is_group[index] else code
        return codes[places].reshape(values.shape)

    def _values(self, name: str) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
        from PIL import Image

        try:
            with Image.open(self.pictures[name]) as picture:
                bands, mode, values = len(picture.getbands()), picture.mode, np.asarray(upright(picture))
        except MemoryError:
            raise
        except Exception as error:  # Pillow's plugins raise many types for damaged files
            text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise Undecodable(f"its picture of objects cannot be decoded: {text}") from None
        if bands > 1 or mode == "F":
            raise Undecodable(f"its picture of objects has no integers for values ({mode})")
        size, encoded = None, self.encoded(name)
        with suppress(Exception), Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            size = shown_size(image)  # what is wrong with the image itself is told elsewhere
        height, width = values.shape
        if size is not None and size != (width, height):
            raise Undecodable(f"its picture of objects has {width}x{height} pixels, and the image {size[0]}x{size[1]}")
        return values.astype(np.int64)

    @property
    def _planes(self) -> Planes:
        return Planes(len(self.labels))

    def parts(self, decoded: Tensor) -> tuple[Tensor, Targets]:
        start = decoded.shape[1] - self._planes.count
        images, targets = super().parts(decoded[:, :start])
        return images, targets | {"instances": self._planes.codes(decoded[:, start:])}

    @property
    def settings(self) -> str:
        return f"{super().settings} {self.labels} {self.others}"

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = super().shape
        return channels + self._planes.count, height, width
