"""Images of a dataset as files of pictures."""

import base64
import colorsys
import io
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tuner.interfaces import IGNORED
from tuner.interfaces.instances import NUMBERS

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

_GREY = (0.6, 0.64, 0.67)
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


def over(image: Tensor, mask: Tensor) -> Tensor:
    """Colour the pixels of an image by their classes, float (3, H, W) in [0, 1].

    Args:
        image: float (C, H, W) in [0, 1].
        mask: The classes, uint8 (H, W): 0, which is the background or the first class, has the image's own colour, and
            where the class is unknown it is black.
    """
    classes = mask.cpu().long()
    grey = image.detach().cpu().clamp(0, 1).mean(dim=0)
    colours = torch.tensor([colour(number) for number in range(IGNORED + 1)]).permute(1, 0)[:, classes]
    shown = torch.where(classes == 0, _coloured(image.detach().cpu()), 0.5 * grey + 0.5 * colours)
    return torch.where(classes == IGNORED, 0.0, shown)


def objects_over(image: Tensor, instances: Tensor) -> Tensor:
    """Colour the objects of an image by their classes, float (3, H, W) in [0, 1]; their edges have the colour alone.

    Objects that are ignored are grey.

    Args:
        image: float (C, H, W) in [0, 1].
        instances: Which object each pixel belongs to, int16 or int32 (H, W), as `tuner.interfaces.instances` codes it.
    """
    codes = instances.cpu().int()
    colours = torch.zeros(3, *codes.shape)
    for code in {*codes.flatten().tolist()} - {0}:
        paint = _GREY if code < 0 else colour(code // NUMBERS)
        colours[:, codes == code] = torch.tensor(paint).unsqueeze(1)
    is_edge = torch.zeros_like(codes, dtype=torch.bool)
    is_edge[1:] |= codes[1:] != codes[:-1]
    is_edge[:, 1:] |= codes[:, 1:] != codes[:, :-1]
    is_edge[:-1] |= codes[1:] != codes[:-1]
    is_edge[:, :-1] |= codes[:, 1:] != codes[:, :-1]
    plain = _coloured(image.detach().cpu())
    shown = torch.where(is_edge, colours, 0.5 * plain + 0.5 * colours)
    return torch.where(codes == 0, plain, shown)


def _coloured(image: Tensor) -> Tensor:
    """An image (C, H, W) with three channels."""
    return image if image.shape[0] == 3 else image.mean(dim=0, keepdim=True).expand(3, -1, -1)


def colour(number: int) -> tuple[float, float, float]:
    """The colour of a class, in [0, 1]: neighbours have hues far from each other."""
    return colorsys.hsv_to_rgb(number * 0.381966 % 1, 0.85, 1)  # the golden angle, as a share of the circle


def enlarged(shown: "Image", width: int, height: int) -> "Image":
    """Enlarge a picture by as many whole times as it fits into an area."""
    from PIL import Image

    times = min(width // shown.width, height // shown.height)
    return shown.resize((shown.width * times, shown.height * times), Image.Resampling.NEAREST) if times > 1 else shown


def font(size: int) -> "FreeTypeFont | ImageFont":
    """A font with the characters of many languages where the machine has one, else Pillow's own."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def data_uri(image: "Image") -> str:
    """Encode a picture for the ``src`` of an image in a page: without loss if it is small, else as JPEG."""
    file = io.BytesIO()
    kind = "png" if max(image.size) <= _SHARP else "jpeg"
    image.save(file, kind, quality=90)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
