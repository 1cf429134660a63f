"""Images of a dataset as files of pictures."""

import base64
import colorsys
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tuner.interfaces import IGNORED

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

_SHARP = 64
"""Sides of an image up to which it is kept pixel by pixel."""
_LETTERS = 9
"""Size of the name of a box's class in pixels of what is shown."""
_ROOM = 0.5
"""Largest share of the height of a box that the name takes."""
_GREY = (128, 128, 128)


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


def over(image: Tensor, mask: Tensor) -> Tensor:
    """Colour the pixels of an image by their classes, float (3, H, W) in [0, 1].

    Args:
        image: float (C, H, W) in [0, 1].
        mask: The classes, uint8 (H, W): 0, which is the background or the first class, has the image's own colour, and
            where the class is unknown it is black.
    """
    classes = mask.cpu().long()
    grey = image.detach().cpu().clamp(0, 1).mean(dim=0)
    colours = torch.tensor([_colour(number) for number in range(IGNORED + 1)]).permute(1, 0)[:, classes]
    shown = torch.where(classes == 0, _coloured(image.detach().cpu()), 0.5 * grey + 0.5 * colours)
    return torch.where(classes == IGNORED, 0.0, shown)


def boxes_over(image: Tensor, boxes: Tensor, classes: Sequence[str], side: int) -> Tensor:
    """Draw the edges of boxes over an image, float (3, H, W) in [0, 1], each in the colour of its class.

    Boxes that are ignored are grey. A box in which there is room for it has the name of its class.

    Args:
        image: float (C, H, W) in [0, 1].
        boxes: The boxes of the image, float (M, 6), as `tuner.interfaces.TargetKind` describes them.
        classes: The names of the classes; their indices stand for names that are missing.
        side: Longest side in pixels to which the image will be reduced.
    """
    from PIL import ImageDraw

    canvas = picture(_coloured(image), max(image.shape[-2:]))
    scale = max(1.0, max(canvas.size) / side)
    line = round(scale)
    pen, letters = ImageDraw.Draw(canvas), font(round(_LETTERS * scale))
    for *edges, number, ignored in boxes.tolist():
        if number < 0:
            continue
        left, top, right, bottom = map(round, edges)
        colour = _GREY if ignored else tuple(round(255 * part) for part in _colour(int(number)))
        pen.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=colour, width=line)
        name = classes[int(number)] if number < len(classes) else str(int(number))
        place = (left + 2 * line, top + 2 * line)
        _, _, end, base = pen.textbbox(place, name, font=letters)
        if end < right - line and base - top < _ROOM * (bottom - top):
            pen.text(place, name, fill=colour, font=letters)
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1).float() / 255


def font(size: int) -> "FreeTypeFont | ImageFont":
    """A font with the characters of many languages where the machine has one, else Pillow's own."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def _coloured(image: Tensor) -> Tensor:
    """An image (C, H, W) with three channels."""
    return image if image.shape[0] == 3 else image.mean(dim=0, keepdim=True).expand(3, -1, -1)


def _colour(number: int) -> tuple[float, float, float]:
    """The colour of a class, in [0, 1]: neighbours have hues far from each other."""
    return colorsys.hsv_to_rgb(number * 0.381966 % 1, 0.85, 1)  # the golden angle, as a share of the circle


def data_uri(image: "Image") -> str:
    """Encode a picture for the ``src`` of an image in a page: without loss if it is small, else as JPEG."""
    file = io.BytesIO()
    kind = "png" if max(image.size) <= _SHARP else "jpeg"
    image.save(file, kind, quality=90)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
