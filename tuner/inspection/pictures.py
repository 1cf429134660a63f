"""Images of a dataset as files of pictures."""

import base64
import io
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

_SHARP = 64
"""Sides of an image up to which it is kept pixel by pixel."""


def picture(image: Tensor, side: int) -> "Image":
    """Convert an image, float (C, H, W) in [0, 1] or uint8, to a PIL image.

    An image of neither one nor three channels is shown in grey, by their mean.

    Args:
        image: The image.
        side: Longest side in pixels, to which a larger image is reduced.
    """
    from PIL import Image

    pixels = image.detach().cpu()
    if pixels.is_floating_point():
        pixels = pixels.clamp(0, 1).mul(255).round()
    if pixels.shape[0] not in (1, 3):
        pixels = pixels.float().mean(dim=0, keepdim=True)
    array = pixels.byte().permute(1, 2, 0).numpy()
    shown = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    if max(shown.size) > side:
        shown.thumbnail((side, side))
    return shown


def data_uri(image: "Image") -> str:
    """Encode a picture for the ``src`` of an image in a page: without loss if it is small, else as JPEG."""
    file = io.BytesIO()
    kind = "png" if max(image.size) <= _SHARP else "jpeg"
    image.save(file, kind, quality=90)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
