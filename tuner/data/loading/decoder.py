"""Decoding of the images of a dataset by their names."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.data.decoding import Encoded, Form, Outcome, decode, decode_each
from tuner.data.pixels import Bytes
from tuner.interfaces import Targets


@dataclass(frozen=True)
class Decoder:
    """Decodes images by their names, in whichever process it is sent to.

    Args:
        encoded: Finds an image by its name.
        form: The form of the images.
        only_grey: Whether images in colour are failures.
    """

    encoded: Encoded
    form: Form
    only_grey: bool

    def all(self, names: list[str]) -> tuple[Tensor, Outcome]:
        """Decode images into one tensor, uint8 (N, C, H, W)."""
        images = torch.empty((len(names), *self.shape), dtype=torch.uint8)
        pixels = images.numpy()

        def fill(index: int, image: Bytes) -> None:
            pixels[index] = image

        return images, self.each(names, fill)

    def each(self, names: list[str], take: Callable[[int, Bytes], None], threads: int | None = None) -> Outcome:
        """Decode images one by one; see `decode_each`."""
        return decode_each(names, self._decoded, take, threads)

    def _decoded(self, name: str) -> tuple[Bytes, bool]:
        return decode(self.encoded(name), self.form, only_grey=self.only_grey)

    def parts(self, decoded: Tensor) -> tuple[Tensor, Targets]:
        """Divide what was decoded, uint8 (N, C, H, W), into the images and the targets that were decoded with them."""
        return decoded, {}

    @property
    def settings(self) -> str:
        """What changes the bytes that images are decoded to."""
        return f"{self.form} {self.only_grey}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """The channels, the height and the width of an image."""
        return self.form.channels, self.form.height, self.form.width

    @property
    def image_bytes(self) -> int:
        """The bytes of a decoded image."""
        channels, height, width = self.shape
        return channels * height * width
