"""Codes of objects as bytes behind the channels of an image, so that every cache holds both."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuner.data.decoding import Form, fitted
from tuner.data.pixels import Bytes
from tuner.interfaces.instances import NUMBERS

Codes = np.ndarray[Any, np.dtype[np.int32]]
"""Which object each pixel of an image belongs to, as `tuner.interfaces.instances` codes that, int32 (H, W)."""


@dataclass(frozen=True)
class Planes:
    """Planes of bytes that hold the codes of objects, which are int16 up to 32 classes, else int32.

    Args:
        classes: The number of the classes.
    """

    classes: int

    @property
    def count(self) -> int:
        """The number of planes."""
        return 2 if self.classes * NUMBERS <= 2**15 else 4

    def of(self, codes: Codes, form: Form) -> Bytes:
        """The planes of an image, uint8 (planes, height, width): each pixel has the code of the nearest one.

        Args:
            codes: The codes of the image in its own size.
            form: The form of the image; what it pads is background.
        """
        from PIL import Image

        resized = np.asarray(fitted(Image.fromarray(codes), form, Image.Resampling.NEAREST))
        whole = np.ascontiguousarray(resized, dtype=np.int16 if self.count == 2 else np.int32)
        return whole.reshape(-1).view(np.uint8).reshape(self.count, form.height, form.width)

    def codes(self, planes: Tensor) -> Tensor:
        """The codes that planes hold, int16 or int32 (N, H, W), without a copy where their bytes lie in step.

        Args:
            planes: The planes of images, uint8 (N, planes, H, W).
        """
        images, _, height, width = planes.shape
        flat = planes.flatten(1)
        if flat.storage_offset() % self.count or flat.stride(0) % self.count or flat.stride(1) != 1:
            flat = flat.clone(memory_format=torch.contiguous_format)
        return flat.view(torch.int16 if self.count == 2 else torch.int32).view(images, height, width)
